"""Bad data, damaged checkpoints, full disks: one clear line, the right exit code, and nothing lost."""
import os
import random
import shutil
import struct
import unittest

from harness import CORRUPT, FAILED, TINY, USAGE, Case, limit_file_size, without_root_rights


class Data(Case):
    def refused_data(self, code, parts, path, *more, **options):
        line = self.refused(code, parts, "train", *TINY, f"data.path={path}", "run.dir=run", *more, **options)
        self.assertEqual(self.checkpoints("run"), [])
        return line

    def test_missing_empty_and_too_short_texts(self):
        self.refused_data(USAGE, "missing.txt", "missing.txt")
        self.refused_data(USAGE, "missing/text.txt", "missing/text.txt")
        (self.folder / "empty.txt").write_bytes(b"")
        self.refused_data(USAGE, ["empty.txt", "empty"], "empty.txt")
        (self.folder / "one.txt").write_bytes(b"a")
        self.refused_data(USAGE, ["one.txt", "17"], "one.txt")
        (self.folder / "short.txt").write_bytes(b"sixteen letters.")
        self.refused_data(USAGE, ["short.txt", "17"], "short.txt", "data.validation_fraction=0")
        (self.folder / "enough.txt").write_bytes(b"seventeen letters")
        self.done("train", *TINY, "data.path=enough.txt", "data.validation_fraction=0", "run.dir=run")

    def test_a_batch_longer_than_the_data(self):
        (self.folder / "text.txt").write_bytes(b"x" * 100)
        self.refused_data(USAGE, ["text.txt", "train.seq_len"], "text.txt", "train.seq_len=128")
        # Sequences may overlap and repeat: a large micro-batch of short ones is no mistake.
        self.done("train", *TINY, "data.path=text.txt", "train.micro_batch=64", "train.steps=1", "run.dir=run")

    def test_what_is_no_regular_file(self):
        (self.folder / "folder").mkdir()
        self.refused_data(USAGE, "folder", "folder")
        os.mkfifo(self.folder / "pipe")
        self.refused_data(USAGE, "pipe", "pipe")  # and it does not wait for a writer
        self.refused_data(USAGE, "/dev/zero", "/dev/zero")
        os.symlink("nowhere", self.folder / "dangling")
        self.refused_data(USAGE, "dangling", "dangling")

    def test_an_unreadable_file(self):
        text = self.text()
        text.chmod(0)
        self.refused_data(FAILED, ["text.txt", "Permission denied"], text, preexec_fn=without_root_rights)

    def test_invalid_utf8_is_kept_byte_for_byte(self):
        (self.folder / "bytes.txt").write_bytes(bytes(range(256)) * 20 + b"\xff\xfe\xc0\x80 broken \xe2\x82" * 40)
        for tokenizer, vocab in (("bytes", 256), ("bpe:300", 300)):
            run = f"run{vocab}"
            self.done("train", *TINY, "data.path=bytes.txt", f"data.tokenizer={tokenizer}", f"model.vocab={vocab}", f"run.dir={run}")
            made = self.done("generate", f"run.dir={run}", "--tokens", "50", "--json").json()
            self.assertEqual(made["tokens"], 50)

    def npy(self, name, ids, kind="<u2"):
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({len(ids)},), }}"
        header = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
        (self.folder / name).write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"".join(struct.pack(kind[0] + {"u2": "H", "i4": "i"}[kind[1:]], i) for i in ids))

    def test_token_files(self):
        ids = [i * 7 % 250 for i in range(400)]
        self.npy("good.npy", ids)
        self.done("train", *TINY, "data.path=good.npy", "run.dir=good")
        self.npy("beyond.npy", ids[:300] + [256] + ids)
        self.refused_data(USAGE, ["beyond.npy", "token 300 is id 256", "a model.vocab of 257"], "beyond.npy")
        self.done("train", *TINY, "data.path=beyond.npy", "model.vocab=257", "run.dir=beyond")
        self.npy("negative.npy", ids[:30] + [-1] + ids, "<i4")
        self.refused_data(CORRUPT, ["negative.npy", "-1"], "negative.npy")
        whole = (self.folder / "good.npy").read_bytes()
        (self.folder / "cut.npy").write_bytes(whole[:-100])
        self.refused_data(CORRUPT, "cut.npy", "cut.npy")
        (self.folder / "header.npy").write_bytes(whole[:40])
        self.refused_data(CORRUPT, "header.npy", "header.npy")
        (self.folder / "odd.u16").write_bytes(whole[128:] + b"x")
        self.refused_data(CORRUPT, "odd.u16", "odd.u16")
        self.npy("none.npy", [])
        self.refused_data(CORRUPT, "none.npy", "none.npy")

    def test_a_vocabulary_larger_than_the_models(self):
        self.refused_data(USAGE, ["model.vocab"], self.text(), "model.vocab=200")
        self.refused_data(USAGE, ["model.vocab"], self.text(), "data.tokenizer=bpe:300", "model.vocab=256", only=False)
        self.refused_data(USAGE, "nowhere.json", self.text(), "data.tokenizer=nowhere.json")
        (self.folder / "broken.json").write_text('{"model": ')
        self.refused_data(CORRUPT, "broken.json", self.text(), "data.tokenizer=broken.json")


class Checkpoint(Case):
    """One run of four steps with two checkpoints, damaged in every way on copies."""

    def setUp(self):
        super().setUp()
        self.run_folder = self.folder / "run"
        self.done("train", *TINY, f"data.path={self.text()}", "run.dir=run", "train.stop_after=4", "checkpoint.every=2")
        shutil.copytree(self.run_folder, self.folder / "intact")

    def restore(self):
        shutil.rmtree(self.run_folder)
        shutil.copytree(self.folder / "intact", self.run_folder)

    READERS = {"model.safetensors": ["train", "eval", "generate"], "optimizer.safetensors": ["train"], "state.json": ["train", "eval", "generate"]}

    def command(self, name):
        return {"train": ["train", "--resume"], "eval": ["eval"], "generate": ["generate", "--tokens", "1"]}[name] + ["run.dir=run"]

    def expect_corrupt(self, file):
        """Whoever reads the file refuses the checkpoint and names the other; who does not need it works."""
        for name in ("train", "eval", "generate"):
            if name in self.READERS[file]:
                line = self.refused(CORRUPT, ["step-4", file], *self.command(name), only=False)
                self.assertIn("step-2 is intact", line)
            else:
                self.done(*self.command(name))
        self.refused(CORRUPT, file, "inspect", "run/checkpoints/step-4")

    def expect_seen(self, file):
        self.refused(CORRUPT, ["step-4", file], *self.command(self.READERS[file][-1]), only=False)

    def test_truncated(self):
        for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
            path = self.run_folder / "checkpoints/step-4" / file
            size = path.stat().st_size
            for length in (0, 7, size // 2, size - 1):
                os.truncate(path, length)
                self.expect_seen(file)
                self.restore()
            os.truncate(path, size // 3)
            self.expect_corrupt(file)
            self.restore()

    def test_flipped_bits(self):
        rng = random.Random(3)
        for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
            path = self.run_folder / "checkpoints/step-4" / file
            whole = path.read_bytes()
            for at in [0, len(whole) - 1] + [rng.randrange(len(whole)) for _ in range(6)]:
                damaged = bytearray(whole)
                damaged[at] ^= 1 << rng.randrange(8)
                path.write_bytes(damaged)
                self.expect_seen(file)
            self.expect_corrupt(file)
            self.restore()

    def test_a_missing_file(self):
        for file in ("optimizer.safetensors", "model.safetensors"):
            (self.run_folder / "checkpoints/step-4" / file).unlink()
            self.expect_corrupt(file)
            self.restore()

    def test_the_way_out_works(self):
        os.truncate(self.run_folder / "checkpoints/step-4/model.safetensors", 100)
        self.refused(CORRUPT, "step-2 is intact", "train", "run.dir=run", "--resume", only=False)
        shutil.rmtree(self.run_folder / "checkpoints/step-4")
        self.done("train", "run.dir=run", "--resume", "train.stop_after=0")
        self.done("train", *TINY, f"data.path={self.folder / 'text.txt'}", "run.dir=whole")
        self.assertEqual(self.checkpoint_files("run", 6)["model.safetensors"], self.checkpoint_files("whole", 6)["model.safetensors"])

    def test_a_broken_configuration_of_the_run(self):
        (self.run_folder / "config.toml").write_text("[model\n")
        for command in ("train", "eval", "generate"):
            self.refused(USAGE, "config.toml", command, "run.dir=run", *(["--resume"] if command == "train" else []))
        (self.run_folder / "config.toml").unlink()
        for command in ("train", "eval", "generate"):
            self.refused(USAGE, "config.toml", command, "run.dir=run", *(["--resume"] if command == "train" else []))

    def test_a_changed_text_does_not_continue(self):
        """A continued run draws from the tokens it began with; the file may move, but its tokens must be the same."""
        text = self.folder / "text.txt"
        old = text.read_bytes()
        text.write_bytes(old[:-2] + b"!\n")
        line = self.refused(USAGE, ["step-4", "other tokens", "text.txt"], "train", "run.dir=run", "--resume", "train.stop_after=0")
        self.assertIn("restore", line)
        self.assertEqual(self.checkpoints("run"), ["step-2", "step-4"])
        text.unlink()
        (self.folder / "moved.txt").write_bytes(old)
        self.done("train", "run.dir=run", "--resume", "train.stop_after=0", "data.path=moved.txt")


class Metrics(Case):
    def test_unreadable_lines_are_dropped_with_one_warning(self):
        self.done("train", *TINY, "run.dir=run", "train.stop_after=4")
        path = self.folder / "run/metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + b"\x00garbage\n" + b"{\n" + lines[3] + lines[3][:20])
        result = self.done("train", "run.dir=run", "--resume", "train.stop_after=0")
        self.assertEqual([line for line in result.err.splitlines() if "metrics.jsonl" in line],
                         ["run/metrics.jsonl: 3 unreadable lines are left out"])
        self.assertEqual([step for step, kind in self.metrics("run")], [1, 4, 5, 6])
        self.done("train", *TINY, "run.dir=whole")
        self.assertEqual(self.checkpoint_files("run", 6), self.checkpoint_files("whole", 6))

    def test_whole_metrics_make_no_warning(self):
        self.done("train", *TINY, "run.dir=run", "train.stop_after=4")
        self.assertNotIn("metrics.jsonl", self.done("train", "run.dir=run", "--resume", "train.stop_after=0").err)


class FullDisk(Case):
    def test_during_a_save_keeps_the_checkpoint_before_and_continues(self):
        size = 20000  # bytes: less than the model's file, more than every other
        self.done("train", *TINY, "run.dir=whole")
        self.done("train", *TINY, "run.dir=run", "train.stop_after=3")
        self.assertGreater((self.folder / "run/checkpoints/step-3/model.safetensors").stat().st_size, size)
        before = self.checkpoint_files("run", 3)
        line = self.refused(FAILED, "run/checkpoints", "train", "run.dir=run", "--resume", "train.stop_after=5", only=False, preexec_fn=limit_file_size(size))
        self.assertRegex(line, "too large|No space|full")
        self.assertEqual(self.checkpoints("run"), ["step-3"], "nothing half-written stays")
        self.assertEqual(self.checkpoint_files("run", 3), before)
        self.done("train", "run.dir=run", "--resume", "train.stop_after=0")
        self.assertEqual(self.checkpoint_files("run", 6), self.checkpoint_files("whole", 6))
        self.assertEqual(self.metrics("run"), self.metrics("whole"))

    def test_while_metrics_are_written(self):
        self.refused(FAILED, "run", "train", *TINY, "run.dir=run", only=False, preexec_fn=limit_file_size(64))

    def test_while_a_text_is_tokenized(self):
        text = self.text(lines=2000)
        self.refused(FAILED, "run", "train", *TINY, f"data.path={text}", "run.dir=run", only=False, preexec_fn=limit_file_size(30000))
        self.assertEqual([p.name for p in (self.folder / "run").glob("tokens-*")], [])
        self.done("train", *TINY, f"data.path={text}", "run.dir=run")

    def test_a_folder_that_cannot_be_written(self):
        (self.folder / "locked").mkdir(mode=0o555)
        self.refused(FAILED, "locked", "train", *TINY, "run.dir=locked/run", preexec_fn=without_root_rights)
        (self.folder / "file").write_text("")
        self.refused(FAILED, "file", "train", *TINY, "run.dir=file/run")


if __name__ == "__main__":
    unittest.main()
