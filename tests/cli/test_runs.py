"""Whole runs: what they print and leave behind; interrupted, killed and continued ones end with the same bytes."""
import json
import pathlib
import random
import re
import signal
import time
import unittest

from harness import CORRUPT, FAILED, INTERRUPTED, MEMORY, SLOWNESS, TERMINATED, TINY, USAGE, Case, without_root_rights

# Signals arrive within the first quarter of these steps of some milliseconds, so that the run is still there.
STEPS = 120
LONG = ["model.layers=2", "model.d_model=64", "train.micro_batch=2", "train.seq_len=64", f"train.steps={STEPS}"]


class Train(Case):
    def test_prints_one_json_document_and_writes_the_run_directory(self):
        text = self.text()
        result = self.done("train", *TINY, f"data.path={text}", "run.dir=run", "eval.every=2", "eval.batches=3", "--json")
        summary = result.json()
        self.check_summary(summary)
        self.assertEqual(summary, json.loads((self.folder / "run/summary.json").read_text()))
        predicted, measured = summary["predicted"], summary["measured"]
        self.assertEqual(predicted["memory"], measured["memory"])
        self.assertRegex(measured["memory"]["trace_hash"], r"^[0-9a-f]{16}$")
        self.assertEqual(predicted["flops"], measured["flops"])
        self.assertGreater(measured["loss"]["train"], 0)
        self.assertAlmostEqual(measured["loss"]["bits_per_byte"], measured["loss"]["validation"] / 0.6931471805599453, places=9)  # bytes
        self.assertIsNone(measured["mfu"], "without a measured peak there is no MFU, and no guess")
        self.assertGreater(summary["process"]["peak_rss_bytes"], measured["memory"]["peak_bytes"])
        metrics = self.metrics("run")
        self.assertEqual([step for step, kind in metrics if kind == "train"], [1, 2, 3, 4, 5, 6])
        self.assertEqual([step for step, kind in metrics if kind == "validation"], [2, 4, 6])
        self.assertEqual(set(metrics[1, "train"]), {"step", "loss", "lr", "grad_norm", "tokens"})
        self.assertEqual(self.checkpoints("run"), ["step-6"])
        self.assertIn('preset = "tiny"', (self.folder / "run/config.toml").read_text())

    def test_speaks_to_people_on_stderr_and_says_the_result_on_stdout(self):
        result = self.done("train", *TINY, "run.dir=run")
        self.assertRegex(result.err, r"step 6/6  loss [\d.]+  [\d,]+ tok/s \(last 6\)  ")
        self.assertNotIn("\x1b", result.err, "no escapes where stderr is no terminal")
        self.assertRegex(result.out, r"loss \d+\.\d+ -> \d+\.\d+")
        self.assertRegex(result.out, r"(?m)^[\d,]+ tokens/s \(median of 6 steps\)")
        self.assertIn("saved run/checkpoints/step-6", result.out)

    def test_resolved_configuration_makes_the_same_run(self):
        self.done("train", *TINY, "run.dir=a")
        self.done("train", "a/config.toml", "run.dir=b")
        self.assertEqual(self.checkpoint_files("a", 6), self.checkpoint_files("b", 6))

    def test_threads_do_not_change_a_bit(self):
        for threads in (1, 2, 5):
            self.done("train", *TINY, f"run.dir=run{threads}", "--threads", threads)
            self.assertEqual(self.checkpoint_files("run1", 6), self.checkpoint_files(f"run{threads}", 6))

    def test_bench_prints_the_same_schema_and_writes_nothing(self):
        summary = self.done("bench", "train", *TINY, "run.dir=run", "--json").json()
        self.check_summary(summary)
        self.assertEqual(summary["predicted"]["memory"]["trace_hash"], summary["measured"]["memory"]["trace_hash"])
        self.assertGreater(summary["measured"]["tokens_per_second"], 0)
        self.assertFalse((self.folder / "run").exists())

    def test_bench_says_why_there_is_no_time(self):
        result = self.done("bench", "train", *TINY, "--json")
        self.assertIsNone(result.json()["predicted"]["step_seconds"])
        self.assertEqual(result.err.count("bench device"), 1, str(result))

    def test_bench_says_that_it_reads_no_data(self):
        result = self.done("bench", "train", *TINY, "data.path=missing.txt", "--json")
        self.check_summary(result.json())
        self.assertEqual(result.err.splitlines()[0], "bench train runs on synthetic tokens: data.path is not read")
        self.assertEqual(result.err.count("data.path"), 1, str(result))
        self.assertNotIn("data.path", self.done("bench", "train", *TINY, "--json").err)
        self.assertIn("data.path is not read", self.done("bench", "--help").out)

    def test_a_forward_pass_beyond_float16_ends_the_run_at_once(self):
        """No loss scale can mend it, so none is tried."""
        result = self.reckon("train", *TINY, f"data.path={self.text()}", "train.precision=fp16", "optim.lr=1000", "optim.warmup_steps=0",
                             "optim.clip_norm=0", "train.steps=40")
        self.assertEqual(result.code, FAILED, str(result))
        self.assertIn("is not finite", result.err.splitlines()[-1])
        self.assertLess(result.err.count("the scale halved"), 3, str(result))

    def test_fp8_says_that_it_is_emulated_and_is_judged_in_bf16(self):
        plan = self.done("plan", *TINY, "train.precision=fp8").out
        self.assertIn("fp8", plan.splitlines()[0])
        self.assertIn("emulated by bfloat16 products", plan.splitlines()[0])
        result = self.done("train", *TINY, f"data.path={self.text()}", "train.precision=fp8", "eval.batches=1000", "run.dir=run")
        self.assertIn("train.precision=fp8 is emulated", "\n".join(result.err.splitlines()[:3]), str(result))
        summary = json.loads((self.folder / "run/summary.json").read_text())
        self.assertEqual(summary["predicted"]["memory"], summary["measured"]["memory"])
        scales = self.done("inspect", "run").out + self.done("inspect", str(next((self.folder / "run/checkpoints").iterdir()))).out
        self.assertIn("fp8_scales.blocks.0.attn.qkv", scales)
        self.assertEqual(self.done("eval", "run.dir=run", "--json").json()["loss"]["validation"], summary["measured"]["loss"]["validation"])

    def test_waiting_threads_do_not_spin_for_long(self):
        """The environment of the process that computes: a short spin unless the user says otherwise."""
        for given, seen in (({}, "GOMP_SPINCOUNT=10000"), ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT=7"), ({"OMP_WAIT_POLICY": "active"}, None)):
            for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
                self.environment.pop(name, None)
            self.environment.update(given)
            run = f"run-{seen}"
            process = self.start("train", *LONG, "train.steps=100000", f"run.dir={run}")
            while not (self.folder / run / "metrics.jsonl").exists() and process.poll() is None:
                time.sleep(0.001)
            environment = pathlib.Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(), INTERRUPTED)
            self.assertEqual([v for v in environment if v.startswith("GOMP_SPINCOUNT")], [seen] if seen else [])

    def test_a_budget_is_kept_to_the_byte(self):
        plan = self.done("bench", "train", *TINY, "--json").json()["predicted"]["memory"]
        line = self.refused(MEMORY, ["does not fit", "memory.budget"], "train", *TINY, "run.dir=run", f"memory.budget={plan['arena_bytes'] - 1}")
        self.assertRegex(line, "train.micro_batch|train.recompute")
        self.assertEqual(self.checkpoints("run"), [])
        self.done("train", *TINY, "run.dir=run", f"memory.budget={plan['arena_bytes']}")

    def test_a_run_that_is_not_finite_names_operation_and_layer(self):
        exploding = ["model.preset=cruncher", "model.layers=16", "model.d_model=64", "model.init_std=1000", "train.steps=4", "train.micro_batch=2"]
        line = self.refused(FAILED, ["step 1", "linear in layers.", "forward pass", "run/checkpoints/step-0"], "train", *exploding, "run.dir=run", only=False)
        self.assertRegex(line, r"layers\.\d+")
        self.assertEqual(self.checkpoints("run"), ["step-0"])
        again = self.refused(FAILED, "linear in layers.", "train", "run.dir=run", "--resume", only=False)
        self.assertEqual(re.search(r"layers\.\d+", again)[0], re.search(r"layers\.\d+", line)[0], "the same step fails at the same place")


class Interrupted(Case):
    def interrupt(self, process, run, lines, how):
        """Sends the signal after so many lines of metrics; the exit code."""
        path = self.folder / run / "metrics.jsonl"
        while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
            time.sleep(0.001)
        process.send_signal(how)
        process.wait()
        return process.returncode, process.stderr.read().decode()

    def test_by_ctrl_c_saves_exits_130_and_continues_to_the_same_bytes(self):
        self.done("train", *LONG, "run.dir=whole")
        rng = random.Random(7)
        for trial, how in enumerate((signal.SIGINT, signal.SIGINT, signal.SIGTERM)):
            run = f"run{trial}"
            code, err = self.interrupt(self.start("train", *LONG, f"run.dir={run}"), run, rng.randint(1, 25), how)
            self.assertEqual(code, INTERRUPTED, err)
            saved = self.checkpoints(run)
            self.assertEqual(len(saved), 1)
            step = int(saved[0].removeprefix("step-"))
            self.assertTrue(0 < step < STEPS, saved)
            self.assertEqual(sum(kind == "train" for _, kind in self.metrics(run)), step)
            self.done("train", f"run.dir={run}", "--resume")
            self.assertEqual(self.checkpoint_files(run, STEPS), self.checkpoint_files("whole", STEPS))
            self.assertEqual(self.metrics(run), self.metrics("whole"))

    def test_by_kill_continues_from_the_last_checkpoint_to_the_same_bytes(self):
        text = self.text(lines=2000)
        arguments = [*LONG, f"data.path={text}", "checkpoint.every=10", "eval.every=5", "eval.batches=1"]
        self.done("train", *arguments, "run.dir=whole")
        rng = random.Random(8)
        for trial in range(2):
            run = f"run{trial}"
            code, _ = self.interrupt(self.start("train", *arguments, f"run.dir={run}"), run, rng.randint(12, 30), signal.SIGKILL)
            self.assertEqual(code, -signal.SIGKILL)
            self.done("train", f"run.dir={run}", "--resume")
            self.assertEqual(self.checkpoint_files(run, STEPS), self.checkpoint_files("whole", STEPS))
            self.assertEqual(self.metrics(run), self.metrics("whole"))
            self.assertEqual([name for name in self.checkpoints(run) if not name.startswith("step-")], [], "what the kill left is gone")

    def test_a_second_process_in_the_same_folder_is_refused(self):
        process = self.start("train", *LONG, "train.steps=100000", "run.dir=run")
        while not (self.folder / "run/metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.001)
        self.refused(FAILED, ["run", f"process {process.pid}"], "train", *LONG, "run.dir=run")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(), INTERRUPTED)

    def interrupt_early(self, how, *arguments):
        """Sends the signal soon after the program listens to it; the exit code, how long it took to end, in seconds, and stderr."""
        process = self.start(*arguments)
        def listens():
            caught = re.search(r"(?m)^SigCgt:\s*([0-9a-f]+)$", pathlib.Path(f"/proc/{process.pid}/status").read_text())
            return caught and int(caught[1], 16) >> (how - 1) & 1
        while process.poll() is None and not listens():
            time.sleep(0.01)
        time.sleep(0.1)
        self.assertIsNone(process.poll(), "it must last longer")
        process.send_signal(how)
        sent = time.monotonic()
        process.wait()
        return process.returncode, time.monotonic() - sent, process.stderr.read().decode()

    def test_before_the_first_step_ends_at_once_and_leaves_nothing(self):
        """The dry run of many layers and training a tokenizer take seconds; there is nothing to save yet."""
        text = self.text("long.txt", 400000)  # 21 MB
        many_layers = ["model.preset=llama-3-8b", "model.layers=20000", "train.micro_batch=1", "train.seq_len=16", "memory.budget=9000TB"]
        tokenizer = [f"data.path={text}", "data.tokenizer=bpe:200000"]
        trials = [
            (signal.SIGTERM, TERMINATED, "train", *many_layers),
            (signal.SIGINT, INTERRUPTED, "train", *TINY, *tokenizer, "model.vocab=200000", "run.dir=a/b/run"),
            (signal.SIGINT, INTERRUPTED, "bench", "train", *LONG, "train.steps=100000"),
            (signal.SIGTERM, TERMINATED, "tokenize", *tokenizer, "--out", "tokens.npy"),
        ]
        before = self.files()
        for how, code, *arguments in trials:
            with self.subTest(arguments[0]):
                got, took, err = self.interrupt_early(how, *arguments)
                self.assertEqual(got, code, err)
                self.assertLess(took, 5 * SLOWNESS, err)
                self.assertTrue(err.endswith("reckon: interrupted; nothing was kept of what had been begun\n"), err)
                self.assertEqual(self.files(), before)

    def test_stop_after_is_an_interruption_that_exits_0(self):
        self.done("train", *TINY, "run.dir=whole")
        self.done("train", *TINY, "run.dir=run", "train.stop_after=2")
        self.assertEqual(self.checkpoints("run"), ["step-2"])
        self.done("train", "run.dir=run", "--resume", "train.stop_after=4")
        self.assertEqual(self.checkpoints("run"), ["step-2", "step-4"])
        self.done("train", "run.dir=run", "--resume", "train.stop_after=0")
        self.assertEqual(self.checkpoint_files("run", 6), self.checkpoint_files("whole", 6))
        self.assertEqual(self.metrics("run"), self.metrics("whole"))


class Refused(Case):
    def test_leaves_nothing(self):
        text = self.text(lines=20)
        (self.folder / "short.txt").write_text("short")
        (self.folder / "kept").mkdir()
        (self.folder / "kept/notes.txt").write_text("mine")
        before = self.files()
        refusals = [
            (USAGE, ["data.path=missing.txt"]),
            (USAGE, ["data.path=short.txt", "data.tokenizer=bpe:257", "model.vocab=257"]),
            (USAGE, [f"data.path={text}", "model.vocab=200"]),
            (MEMORY, ["memory.budget=10KB"]),
            (USAGE, [f"data.path={text}", "--resume"]),
        ]
        for code, arguments in refusals:
            for run in ("run", "a/b/run", "kept", "kept/run"):
                with self.subTest(arguments=arguments, run=run):
                    self.refused(code, "", "train", *TINY, *arguments, f"run.dir={run}")
                    self.assertEqual(self.files(), before)
        self.done("train", *TINY, f"data.path={text}", "run.dir=kept")
        self.assertNotIn("kept/.lock", self.files(), "a lock is gone with its process")
        before = self.files()
        (self.folder / "other.txt").write_text("another text, as long as this one is" * 30)
        self.refused(USAGE, "other tokens", "train", "run.dir=kept", "--resume", "train.stop_after=0", "data.path=other.txt")
        self.assertEqual(self.files(), sorted([*before, "other.txt"]), "tokens of a text that was refused are not kept")


class UsedFolder(Case):
    def snapshot(self):
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in (self.folder / "run").rglob("*") if p.is_file()}

    def test_is_refused_without_resume_and_loses_nothing(self):
        self.done("train", *TINY, "run.dir=run")
        before = self.snapshot()
        self.refused(USAGE, ["run", "--resume", "--overwrite"], "train", *TINY, "seed=2", "run.dir=run")
        self.assertEqual(self.snapshot(), before)

    def test_can_be_overwritten_but_only_by_a_run_that_starts(self):
        self.done("train", *TINY, "run.dir=run", f"data.path={self.text()}", "data.tokenizer=bpe:270", "model.vocab=270")
        before = self.snapshot()
        self.refused(USAGE, "missing.txt", "train", *TINY, "run.dir=run", "data.path=missing.txt", "--overwrite")
        self.refused(MEMORY, "memory.budget", "train", *TINY, "run.dir=run", "memory.budget=1MB", "model.d_model=256", "--overwrite")
        self.assertEqual({name: data for name, data in self.snapshot().items() if name in before}, before)
        self.done("train", *TINY, "run.dir=run", "seed=3", "train.steps=2", f"data.path={self.text()}", "--overwrite")
        self.assertEqual(self.checkpoints("run"), ["step-2"])
        self.assertEqual([step for step, kind in self.metrics("run") if kind == "train"], [1, 2])
        # The tokenizer of the overwritten run is not the new one's.
        self.assertEqual(self.done("generate", "run.dir=run", "--prompt", "In line", "--tokens", "3", "--json").json()["prompt_tokens"], 7)

    def test_another_configuration_cannot_continue_it(self):
        self.done("train", *TINY, "run.dir=run", "train.stop_after=3")
        before = self.snapshot()
        for change in ("model.layers=2", "optim.lr=0.5", "optim.name=sgd", "train.micro_batch=1", "seed=9", "train.precision=bf16"):
            with self.subTest(change):
                line = self.refused(USAGE, "another configuration", "train", "run.dir=run", "--resume", change, only=False)
                self.assertRegex(line, re.escape(change.split("=")[0]) + r" was [^;]+, is [^;]*" + re.escape(change.split("=")[1]))
                self.assertEqual(self.snapshot(), before)
        line = self.refused(USAGE, "train.steps was 6, is 9", "train", "run.dir=run", "--resume", "train.steps=9", only=False)
        self.assertNotIn("stop_after was", line, "what may change is not blamed")
        self.done("train", "run.dir=run", "--resume", "train.stop_after=0")

    def test_a_complete_run_has_nothing_to_resume_and_keeps_its_summary(self):
        self.done("train", *TINY, "run.dir=run", f"data.path={self.text()}")
        before = self.snapshot()
        result = self.done("train", "run.dir=run", "--resume")
        self.assertRegex(result.out, r"^nothing was left to do: the run has all its 6 steps\nvalidation \d\.\d+ \(\d\.\d+ bits per byte\)\n$")
        self.assertEqual(self.snapshot(), before)
        self.assertEqual(self.done("train", "run.dir=run", "--resume", "--json").out, (self.folder / "run/summary.json").read_text())
        # Without a summary, as after a kill between the last save and it, there is one again.
        (self.folder / "run/summary.json").unlink()
        self.check_summary(self.done("train", "run.dir=run", "--resume", "--json").json())
        self.assertTrue((self.folder / "run/summary.json").exists())


class Use(Case):
    def test_eval_and_generate_and_inspect_a_run(self):
        text = self.text()
        self.done("train", *TINY, f"data.path={text}", "run.dir=run", "train.steps=20", "data.tokenizer=bpe:300", "model.vocab=300")
        evaluation = self.done("eval", "run.dir=run", "--json").json()
        self.assertEqual(set(evaluation["loss"]), {"train", "validation", "bits_per_byte"})
        self.assertTrue(0 < evaluation["loss"]["validation"] < 7)
        self.assertGreater(evaluation["tokens"], 0)
        self.assertRegex(self.done("eval", "run.dir=run").out, r"validation loss \d")
        # Every window counts once, in micro-batches of any size; the last may be short.
        for micro_batch in (1, 5, 64):
            other = self.done("eval", "run.dir=run", "--json", f"train.micro_batch={micro_batch}").json()
            self.assertEqual(other["tokens"], evaluation["tokens"])
            self.assertEqual(other["batches"], -(-other["tokens"] // 16 // micro_batch))
            self.assertAlmostEqual(other["loss"]["validation"], evaluation["loss"]["validation"], delta=4 * 2**-23 * 7)
        self.assertEqual(self.done("eval", "run.dir=run", "--json", "--batches", "2", "train.micro_batch=3").json()["tokens"], 2 * 3 * 16)
        story = self.done("generate", "run.dir=run", "--prompt", "In line", "--tokens", "20", "--json").json()
        self.assertTrue(story["text"].startswith("In line"))
        self.assertEqual(story["tokens"], 20)
        again = [self.done("generate", "run.dir=run", "--prompt", "In line", "--tokens", "20", "--threads", t).out for t in (1, 5)]
        self.assertEqual(again[0], again[1])
        self.assertEqual(again[0].rstrip("\n"), story["text"].rstrip("\n"))
        other = self.done("generate", "run.dir=run", "--prompt", "In line", "--tokens", "20", "seed=2").out
        self.assertNotEqual(other, again[0])
        for change in ("model.layers=2", "model.tied_head=false", "train.precision=bf16"):
            for command in ("eval", "generate"):
                self.refused(USAGE, "cannot be changed", command, "run.dir=run", change)
        odd = self.done("generate", "run.dir=run", "--prompt", b"\xffline", "--tokens", "2", "--json").json()["text"]
        self.assertTrue(odd.startswith("\ufffdline"), odd)
        longer = self.done("generate", "run.dir=run", "--tokens", "600", "--temperature", "0", "--json").json()
        self.assertEqual(longer["tokens"], 600, "longer than model.max_seq_len")
        self.assertEqual(self.done("inspect", "run", "--json").json()["checkpoints"][0]["step"], 20)
        self.assertTrue(self.done("inspect", "run/checkpoints/step-20", "--json").json()["verified"])
        tensors = self.done("inspect", "run/checkpoints/step-20/model.safetensors", "--json").json()["tensors"]
        self.assertIn({"name": "embed.weight", "dtype": "F32", "shape": [300, 32], "bytes": 38400}, tensors)
        self.assertEqual(self.done("inspect", "run/tokenizer.json", "--json").json()["vocab"], 300)

    def test_eval_and_generate_only_read_the_run(self):
        """A run in a folder that cannot be written can be judged on any text."""
        self.done("train", *TINY, f"data.path={self.text()}", "run.dir=run", "data.tokenizer=bpe:300", "model.vocab=300")
        other = self.text("other.txt", 500)
        usual = self.done("eval", "run.dir=run", f"data.path={other}", "--json").json()
        folders = [self.folder / "run", *(p for p in (self.folder / "run").rglob("*") if p.is_dir())]
        for tokens in (self.folder / "run").glob("tokens-*"):
            tokens.unlink()
        before = self.files()
        for folder in folders:
            folder.chmod(0o555)
        try:
            temporary = self.folder / "cache/tmp"
            temporary.mkdir(parents=True)
            self.environment["TMPDIR"] = str(temporary)
            self.assertEqual(self.done("eval", "run.dir=run", f"data.path={other}", "--json", preexec_fn=without_root_rights).json(), usual)
            self.done("eval", "run.dir=run", preexec_fn=without_root_rights)
            self.done("generate", "run.dir=run", "--tokens", "3", preexec_fn=without_root_rights)
            self.assertEqual(list(temporary.iterdir()), [], "and what it makes on the way is gone")
        finally:
            for folder in folders:
                folder.chmod(0o755)
        self.assertEqual(self.files(), before)

    def test_a_text_too_poor_for_its_tokenizer_is_said(self):
        (self.folder / "poor.txt").write_text("ab " * 40)
        line = "data.tokenizer=bpe:300 learned only "
        for arguments in (["tokenize", "data.path=poor.txt", "data.tokenizer=bpe:300"],
                          ["train", *TINY, "data.path=poor.txt", "data.tokenizer=bpe:300", "model.vocab=300", "data.validation_fraction=0", "run.dir=run"]):
            found = [l for l in self.done(*arguments).err.splitlines() if l.startswith(line)]
            self.assertEqual(len(found), 1)
            self.assertRegex(found[0], r"learned only (\d+) tokens: .*; model\.vocab=\1 is enough$")
        self.assertNotIn("learned only", self.done("tokenize", f"data.path={self.text()}", "data.tokenizer=bpe:260").err)

    def test_inspect_reads_every_file_of_a_run(self):
        """What a run leaves is not corrupt because inspect is asked about it."""
        self.done("train", *TINY, f"data.path={self.text()}", "run.dir=run", "data.tokenizer=bpe:300", "model.vocab=300")
        out = self.done("inspect", "run/summary.json").out
        measured = json.loads((self.folder / "run/summary.json").read_text())["measured"]
        self.assertRegex(out, rf"(?m)^loss, validation +- +{measured['loss']['validation']:.4f}$")
        self.assertRegex(out, r"(?m)^peak memory +(\S+ [KM]iB) +\1$")
        self.assertEqual(self.done("inspect", "run/summary.json", "--json").out, (self.folder / "run/summary.json").read_text())
        out = self.done("inspect", "run/config.toml").out
        self.assertIn("configuration of tiny: 1 layer,", out)
        self.assertIn((self.folder / "run/config.toml").read_text(), out)
        self.assertEqual(self.done("inspect", "run/config.toml", "--json").json()["steps"], 6)
        self.assertEqual(self.done("inspect", "run/checkpoints/step-6/state.json").out, self.done("inspect", "run/checkpoints/step-6").out)
        self.assertIn("run of tiny: 1 layer,", self.done("inspect", "run").out)
        self.assertRegex(self.done("inspect", *(str(p) for p in (self.folder / "run").glob("tokens-*.npy"))).out, r"npy u16, [\d,]+ tokens: \d+ ")

    def test_inspect_says_what_it_reads(self):
        (self.folder / "other.json").write_text('{"a": [1, 2]}')
        (self.folder / "list.json").write_text("[1]")
        (self.folder / "note.txt").write_text("a note\n")
        (self.folder / "folder").mkdir()
        for path in ("other.json", "list.json", "note.txt"):
            self.refused(USAGE, [path, "inspect reads a run directory", "tokenizer.json", "summary.json"], "inspect", path)
        self.refused(USAGE, ["folder", "config.toml", "state.json"], "inspect", "folder")
        (self.folder / "broken.json").write_text('{"a": ')
        self.refused(CORRUPT, "broken.json", "inspect", "broken.json")
        (self.folder / "broken.toml").write_text("[a\n")
        self.refused(USAGE, "broken.toml:1", "inspect", "broken.toml")

    def test_tokenize_writes_tokens_that_train_like_the_text(self):
        text = self.text()
        made = self.done("tokenize", f"data.path={text}", "data.tokenizer=bpe:280", "--out", "tokens.npy", "--json").json()
        self.done("tokenize", f"data.path={text}", "data.tokenizer=bpe:280", "--out", "tokenizer.json")
        self.assertEqual(made["bytes"], text.stat().st_size)
        self.assertEqual(self.done("inspect", "tokens.npy", "--json").json()["tokens"], made["tokens"])
        self.refused(USAGE, ["tokens.npy", "token ids already"], "tokenize", "data.path=tokens.npy")
        self.refused(USAGE, ["none/tokens.npy", "no folder none"], "tokenize", f"data.path={text}", "data.tokenizer=bpe:280", "--out", "none/tokens.npy")
        shared = [*TINY, "model.vocab=280", "data.tokenizer=tokenizer.json"]
        self.done("train", *shared, f"data.path={text}", "run.dir=a")
        self.done("train", *shared, "data.path=tokens.npy", "run.dir=b")
        self.assertEqual(self.checkpoint_files("a", 6)["model.safetensors"], self.checkpoint_files("b", 6)["model.safetensors"])
        self.done("generate", "run.dir=b", "--tokens", "3")
        # Ids whose tokenizer nobody named are no bytes: there is nothing to write.
        self.done("train", *TINY, "model.vocab=280", "data.path=tokens.npy", "run.dir=c")
        self.refused(USAGE, ["tokens.npy", "data.tokenizer=tokenizer.json"], "generate", "run.dir=c", "--tokens", "3")
        self.done("eval", "run.dir=c")


if __name__ == "__main__":
    unittest.main()
