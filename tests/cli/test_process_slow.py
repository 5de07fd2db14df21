"""The promise for the process's memory, on the preset that it is made for."""
import unittest

from harness import MIB, Case


class Gpt2(Case):
    def explained(self, *arguments):
        process = self.done("bench", "train", "model.preset=gpt2-124m", "train.micro_batch=4", "train.seq_len=256", "train.steps=2", *arguments, "--json").json()["process"]
        predicted, peak = process["predicted_rss_bytes"], process["peak_rss_bytes"]
        self.assertLessEqual(abs(predicted - peak), max(0.02 * peak, 32 * MIB), process)
        self.assertLess(process["runtime"]["unnamed"], MIB, process)

    def test_float32(self):
        self.explained()

    def test_bfloat16(self):
        self.explained("train.precision=bf16")


if __name__ == "__main__":
    unittest.main()
