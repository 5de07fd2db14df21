"""What needs seconds: measuring the machine."""
import json
import unittest

from harness import PROGRAM, TINY, Case


class Machine(Case):
    def test_a_measured_machine_gives_utilization(self):
        self.assertIsNone(self.done("train", *TINY, "run.dir=before", "--json").json()["measured"]["mfu"])
        peaks = self.done("bench", "device", "--json").json()
        self.assertGreater(peaks["f32_flops_per_second"], 1e8)
        self.assertGreater(peaks["copy_bytes_per_second"], 1e8)
        self.assertEqual(peaks, json.loads((self.folder / "cache/cpu.json").read_text()))
        measured = self.done("train", *TINY, "run.dir=after", "--json").json()["measured"]
        self.assertTrue(0 < measured["mfu"] <= measured["hfu"] < 1, measured)
        # Every kind of step has its calls in the tables.
        for keys in (["train.fused_loss=false"], ["train.recompute=selective"], ["train.precision=bf16", "optim.name=adamw8bit"],
                     ["train.precision=fp16", "model.norm=rms_norm", "model.position=rope", "model.mlp=swiglu"],
                     ["train.precision=bf16", "train.master_weights=false"],
                     ["train.precision=fp8", "train.recompute=selective", "optim.name=adamw8bit"], ["model.sliding_window=8", "model.qk_norm=true"]):
            self.assertGreater(self.done("plan", *TINY, *keys, "--json").json()["step_seconds"] or 0, 0, keys)
        # A peak taken on a busy machine: more than all of it is said to be too much, and measuring again mends it.
        kept = self.folder / "cache/cpu.json"
        profile = json.loads(kept.read_text())
        kept.write_text(json.dumps({**profile, "f32_flops_per_second": 1e6}))
        advice = f"measure it again: {PROGRAM} bench device"
        for command in (["train", "run.dir=busy"], ["bench", "train"]):
            self.assertIn(advice, self.done(*command, *TINY).err)
        self.assertGreater(self.done("bench", "device", "--json").json()["f32_flops_per_second"], 1e8)
        self.assertNotIn(advice, self.done("train", *TINY, "run.dir=again").err)


if __name__ == "__main__":
    unittest.main()
