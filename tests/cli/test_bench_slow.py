"""What needs seconds: measuring the machine, and the whole suite of `check`."""
import unittest

from harness import TINY, Case


class Machine(Case):
    def test_a_measured_machine_gives_utilization(self):
        self.assertIsNone(self.done("train", *TINY, "run.dir=before", "--json").json()["measured"]["mfu"])
        peaks = self.done("bench", "device", "--json").json()
        self.assertGreater(peaks["f32_flops_per_second"], 1e8)
        self.assertGreater(peaks["copy_bytes_per_second"], 1e8)
        measured = self.done("train", *TINY, "run.dir=after", "--json").json()["measured"]
        self.assertTrue(0 < measured["mfu"] <= measured["hfu"] < 1, measured)

    def test_check_passes_on_this_machine(self):
        self.done("check")


if __name__ == "__main__":
    unittest.main()
