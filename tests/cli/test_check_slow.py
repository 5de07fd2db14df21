"""The whole suite of `check`."""
import unittest

from harness import Case


class Check(Case):
    def test_it_passes_on_this_machine(self):
        self.done("check")


if __name__ == "__main__":
    unittest.main()
