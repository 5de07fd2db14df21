"""reckon plan: the schema, budgets, what fits and why; and that a run is what its plan said."""
import json
import unittest

from harness import MEMORY, TINY, USAGE, Case


class Plan(Case):
    def too_large(self, *arguments):
        """The line of a refusal for want of memory; the lines before it explain."""
        result = self.reckon(*arguments)
        self.assertEqual(result.code, MEMORY, str(result))
        lines = result.err.splitlines()
        self.assertIn("does not fit", lines[-1], str(result))
        for part in ("the first block beyond", "at the peak of", "largest:"):
            self.assertIn(part, result.err)
        return lines[-1]

    def plan(self, *arguments):
        return json.loads(self.done("plan", *arguments, "--json").out)

    def test_prints_the_schema_of_a_summary(self):
        document = self.plan(*TINY)
        self.done("train", *TINY, "train.steps=2", "run.dir=run")
        summary = json.loads((self.folder / "run/summary.json").read_text())
        self.assertEqual(set(document), set(summary["predicted"]))
        self.assertEqual(document["memory"], summary["measured"]["memory"])
        self.assertEqual(document["flops"], summary["measured"]["flops"])
        self.assertEqual(sum(document["memory"]["at_peak"].values()), document["memory"]["peak_bytes"])

    def test_of_a_model_that_no_machine_here_holds(self):
        document = self.plan("model.preset=llama-3-70b")
        self.assertEqual(document["model"]["parameters"], 70553706496)
        self.assertGreater(document["memory"]["arena_bytes"], 16 * 70e9)

    def test_a_budget_of_exactly_the_arena_fits_and_one_byte_less_does_not(self):
        arena = self.plan(*TINY)["memory"]["arena_bytes"]
        self.done("plan", *TINY, f"memory.budget={arena}")
        line = self.too_large("plan", *TINY, f"memory.budget={arena - 1}")
        self.assertIn("the cheapest change that fits: ", line)
        self.done("train", *TINY, "train.steps=1", "run.dir=run", f"memory.budget={arena}")
        self.too_large("train", *TINY, "train.steps=1", "run.dir=other", f"memory.budget={arena - 1}")
        self.assertFalse((self.folder / "other").exists())

    def test_the_advice_is_worth_following(self):
        arena = self.plan(*TINY, "train.micro_batch=16")["memory"]["arena_bytes"]
        budget = f"memory.budget={arena * 3 // 4}"
        line = self.too_large("plan", *TINY, "train.micro_batch=16", budget)
        changes = line.split("the cheapest change that fits: ")[1].split(" (")[0].split()
        self.done("train", *TINY, "train.micro_batch=16", budget, *changes, "train.steps=1", "run.dir=run")

    def test_bad_budgets(self):
        for budget in ("-1", "4 G", "four", "4TiBB", "1e400", "99999999999999999999GiB"):
            self.refused(USAGE, "memory.budget", "plan", f"memory.budget={budget}")

    def test_fit(self):
        arena = self.plan(*TINY, "train.micro_batch=7")["memory"]["arena_bytes"]
        fit = self.plan(*TINY, f"memory.budget={arena}", "--fit", "micro_batch")
        self.assertEqual(fit["fit"]["micro_batch"], 7)
        self.assertEqual(fit["predicted"]["memory"]["arena_bytes"], arena)
        self.refused(USAGE, "did you mean 'micro_batch'", "plan", "--fit", "microbatch")
        self.too_large("plan", *TINY, "memory.budget=1000", "--fit", "micro_batch")

    def test_scaled_learning_rate(self):
        keys = ("optim.lr=0.001", "optim.lr_scaling=linear", "optim.base_batch_tokens=32")
        self.assertIn("learning rate 0.", self.done("plan", *TINY, *keys).out)
        self.assertNotIn("learning rate", self.done("plan", *TINY).out)

    def test_compare(self):
        both = self.plan(*TINY, "--compare", "optim.name=sgd train.recompute=full")
        self.assertEqual(both["predicted"], self.plan(*TINY))
        self.assertEqual(both["compared"], self.plan(*TINY, "optim.name=sgd", "train.recompute=full"))
        self.assertIn("optimizer", self.done("plan", *TINY, "--compare", "optim.name=sgd").out)
        self.refused(USAGE, "optim.nam", "plan", "--compare", "optim.nam=sgd")

    def test_why(self):
        terms = self.plan(*TINY, "--why", "activation")
        self.assertEqual(sum(t["block_bytes"] * t["blocks"] for t in terms["bytes"]), terms["bytes_at_peak"])
        self.assertEqual(terms["bytes_at_peak"], self.plan(*TINY)["memory"]["at_peak"]["activation"])
        self.assertIn("gelu", self.done("plan", *TINY, "--why", "gelu").out)
        self.refused(USAGE, "did you mean 'activation'", "plan", *TINY, "--why", "activatoin")

    def test_modes_exclude_each_other(self):
        self.refused(USAGE, "exclude each other", "plan", "--why", "gelu", "--fit", "seq_len")

    def test_on_a_device(self):
        out = self.done("plan", "model.preset=llama-3-8b", "train.precision=bf16", "--on", "h100-sxm").out
        self.assertIn("does not fit", out)
        self.refused(USAGE, "h100", "plan", "--on", "h1000")

    def test_sizes_beyond_64_bits_are_reported(self):
        self.refused(USAGE, "2^63", "plan", "model.d_ff=4194304", "model.layers=500", "train.micro_batch=1000000", "train.seq_len=4000", "model.position=rope")


if __name__ == "__main__":
    unittest.main()
