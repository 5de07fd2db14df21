"""memory.budget through the program: the plan's arena is the border, to the byte, for every command that trains; beyond it nothing is touched."""
import re
import unittest

from harness import MEMORY, TINY, Case

RUNS = {
    "plain": [],
    "half precision, recomputed": ["train.precision=bf16", "train.recompute=full", "train.grad_accum=2", "train.seq_len=13"],
    "llama-like": ["model.norm=rms_norm", "model.position=rope", "model.mlp=swiglu", "model.kv_heads=1", "model.tied_head=false", "optim.name=momentum"],
    "cruncher": ["model.preset=cruncher", "optim.name=adagrad", "optim.clip_norm=0"],
}


class Budgets(Case):
    def arena(self, *arguments):
        return self.done("plan", *arguments, "--json").json()["memory"]["arena_bytes"]

    def model(self, run):
        return (self.folder / run / "checkpoints" / self.checkpoints(run)[-1] / "model.safetensors").read_bytes()

    def keys(self, name):
        if name == "cruncher":
            return ["train.micro_batch=2", "train.steps=2"] + RUNS[name]
        return TINY + ["train.steps=2", f"data.path={self.text()}", "data.validation_fraction=0.2"] + RUNS[name]

    def test_what_fits_runs_and_a_byte_less_is_refused(self):
        for i, name in enumerate(RUNS):
            with self.subTest(name):
                keys, run = self.keys(name), f"run{i}"
                arena = self.arena(*keys)
                short, enough = f"memory.budget={arena - 1}", f"memory.budget={arena}"
                self.refused(MEMORY, ["does not fit", "memory.budget"], "train", *keys, f"run.dir={run}", short, only=False)
                self.assertFalse((self.folder / run).exists(), "a refused run leaves nothing behind")
                self.refused(MEMORY, "does not fit", "bench", "train", *keys, short, only=False)
                summary = self.done("train", *keys, f"run.dir={run}", enough, "--json").json()
                self.assertEqual(summary["measured"]["memory"]["arena_bytes"], arena)
                self.assertEqual(summary["measured"]["memory"], summary["predicted"]["memory"])

    def test_a_plan_says_the_same_without_running(self):
        for name in RUNS:
            with self.subTest(name):
                keys = self.keys(name)
                arena = self.arena(*keys)
                self.assertEqual(self.reckon("plan", *keys, f"memory.budget={arena - 1}", "--json").code, MEMORY)
                self.assertEqual(self.arena(*keys, f"memory.budget={arena}"), arena)

    def test_auto_chooses_what_fits_and_a_continued_run_repeats_it(self):
        keys = TINY + ["model.layers=4", "train.micro_batch=16", f"data.path={self.text()}"]
        none, full = self.arena(*keys), self.arena(*keys, "train.recompute=full")
        auto, budget = "train.recompute=auto", f"memory.budget={(none + full) // 2}"
        printed = self.done("plan", *keys, auto, budget).out
        self.assertRegex(printed, r"train\.recompute=auto: \S*none:\d+ in .* above the least of any policy that fits")
        summary = self.done("train", *keys, auto, budget, "run.dir=run", "train.stop_after=2", "--json").json()
        self.assertEqual(summary["measured"]["memory"], summary["predicted"]["memory"])
        self.assertLessEqual(summary["measured"]["memory"]["arena_bytes"], (none + full) // 2)
        chosen = re.search(r'recompute = "auto"\nrecompute_blocks = "([^"]+)"', (self.folder / "run/config.toml").read_text())
        self.assertIn(chosen[1], printed)
        # With more memory it would choose otherwise, but the run has its policy.
        (self.folder / "auto.toml").write_text('[train]\nrecompute = "auto"\n')
        for how in (["run.dir=run", "train.stop_after=4"], ["auto.toml", *keys, "run.dir=run"]):
            again = self.done("train", *how, "--resume", "memory.budget=4GiB", "--json").json()
            self.assertEqual(again["measured"]["memory"]["arena_bytes"], summary["measured"]["memory"]["arena_bytes"])
        self.done("train", *keys, "run.dir=plain")
        self.assertEqual(self.model("run"), self.model("plain"), "the same bits with and without recomputation")
        least = self.reckon("plan", *keys, auto, "memory.budget=1", "--json").json()["memory"]["arena_bytes"]
        self.assertLessEqual(least, full)
        line = self.refused(MEMORY, "does not fit", "train", *keys, auto, f"memory.budget={least - 1}", "run.dir=small", only=False)
        self.assertIn("the smallest plan of train.recompute=auto (", line)
        self.done("train", *keys, auto, f"memory.budget={least}", "run.dir=small")

    def test_a_run_continues_in_its_plan(self):
        keys = TINY + [f"data.path={self.text()}", "run.dir=run"]
        budget = f"memory.budget={self.arena(*keys)}"
        self.done("train", *keys, "train.stop_after=2", budget)
        self.done("train", *keys, "--resume", budget)
        self.assertEqual(self.checkpoints("run"), ["step-2", "step-6"])


if __name__ == "__main__":
    unittest.main()
