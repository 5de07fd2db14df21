"""The process's resident memory: predicted before the run, explained after it, class by class."""
import resource
import unittest

from harness import MIB, TINY, Case

ALLOWED = 32 * MIB


class Process(Case):
    def explained(self, *arguments, command=("bench", "train")):
        """The run's summary; the promise that holds for every run has been checked."""
        summary = self.done(*command, *arguments, "train.steps=3", "--json").json()
        self.check_summary(summary)
        process = summary["process"]
        predicted, peak = process["predicted_rss_bytes"], process["peak_rss_bytes"]
        self.assertEqual(predicted, process["predicted_arena_bytes"] + sum(process["predicted_runtime"].values()))
        self.assertLessEqual(abs(predicted - peak), ALLOWED, process)
        # The steps bring the peak, and classes are taken at their end.
        self.assertLessEqual(peak - process["arena_bytes"] - sum(process["runtime"].values()), 4 * MIB, process)
        self.assertLess(process["runtime"]["unnamed"], MIB, process)
        self.assertGreater(process["runtime"]["libraries"], MIB)
        # The arena's pages, and none but those.
        arena = summary["measured"]["memory"]["arena_bytes"]
        self.assertLessEqual(process["arena_bytes"], arena + 4096)
        self.assertGreater(process["arena_bytes"], arena * 0.9 - 2 * MIB)
        return summary

    def test_of_small_models_is_predicted(self):
        self.explained("model.preset=tiny")
        self.explained("model.preset=tiny", "train.precision=bf16", "train.recompute=full")
        self.explained("model.preset=cruncher")
        self.explained("model.layers=3", "model.d_model=192", "model.heads=3", "model.norm=rms_norm", "model.mlp=swiglu", "model.position=rope",
                       "model.kv_heads=1", "train.grad_accum=5")

    def test_of_groups_that_only_the_whole_model_has(self):
        self.explained("model.layers=3", "optim.groups=blocks.2.* lr=2; *.bias weight_decay=0")  # the probe's has two layers

    def test_of_a_run_with_text_and_checkpoints_is_predicted(self):
        text = self.text(lines=20000)
        first = self.explained("model.preset=tiny", f"data.path={text}", "data.tokenizer=bpe:1000", "model.vocab=1000", "train.stop_after=2", "run.dir=a", command=("train",))
        again = self.explained("run.dir=a", "--resume", "train.stop_after=3", command=("train",))
        # What the tokenizer's training took is not there any more beside the arena.
        for summary in first, again:
            self.assertLess(summary["process"]["runtime"]["heap"], 4 * MIB)

    def test_threads_count(self):
        one = self.explained("model.preset=tiny", "--threads", "1")["process"]
        many = self.explained("model.preset=tiny", "--threads", "9")["process"]
        for key in "predicted_runtime", "runtime":
            self.assertGreater(many[key]["stacks"], one[key]["stacks"] + 8 * 4096, key)

    def test_is_in_the_table_at_the_end(self):
        for command in ("train", "run.dir=b"), ("bench", "train"):
            shown = self.done(*command, *TINY).err.splitlines()
            rows = {" ".join(line.split()[:-3]): line.split()[-3:] for line in shown if line.endswith("equal")}
            for name in "peak", "arena", "activation", "matmul", "vector", "model":
                self.assertIn(name, rows, shown)
                predicted, measured, _ = rows[name]
                self.assertEqual(predicted, measured)
            self.assertTrue(any(line.startswith("process, at its peak") and line.endswith("%") for line in shown), shown)
        self.assertNotIn("process, at its peak", self.done("train", *TINY, "run.dir=c", "--json").err)

    def test_that_cannot_be_probed_is_null_and_the_run_goes_on(self):
        def no_pipe():
            resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))

        result = self.done("bench", "train", *TINY, "--json", preexec_fn=no_pipe)
        self.assertIn("the process's memory is not predicted, which takes another process: no pipe: Too many open files\n", result.err)
        process = result.json()["process"]
        self.assertIsNone(process["predicted_rss_bytes"])
        self.assertIsNone(process["predicted_arena_bytes"])
        self.assertEqual(set(process["predicted_runtime"].values()), {None})
        self.assertGreater(process["runtime"]["libraries"], MIB)

    def test_a_probe_is_nothing_for_users(self):
        self.refused(2, "process-probe", "process-probe")
        self.assertNotIn("process-probe", self.done("help").out)


if __name__ == "__main__":
    unittest.main()
