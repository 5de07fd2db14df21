"""Help, commands, flags, keys: what is accepted, and one clear line with exit code 2 for what is not."""
import subprocess
import unittest

from harness import CORRUPT, DONE, FAILED, INTERRUPTED, MEMORY, TINY, USAGE, Case

COMMANDS = "train eval generate tokenize inspect bench check".split()


class Help(Case):
    def test_lists_the_commands_and_exit_codes(self):
        for arguments in ([], ["--help"], ["-h"]):
            out = self.done(*arguments).out
            for command in COMMANDS:
                self.assertRegex(out, rf"(?m)^ +{command} ")
            for code in (DONE, FAILED, USAGE, MEMORY, CORRUPT, INTERRUPTED):
                self.assertRegex(out, rf"\b{code} ")

    def test_of_a_command_shows_flags_an_example_and_every_key(self):
        for command in COMMANDS:
            out = self.done(command, "--help").out
            self.assertIn("--json", out)
            self.assertIn(f"Example: reckon {command}", out)
        out = self.done("train", "--help").out
        for key in ("model.preset", "train.micro_batch", "optim.lr", "data.path", "memory.budget", "run.dir", "seed", "checkpoint.keep"):
            self.assertRegex(out, rf"(?m)^ +{key}=")

    def test_version(self):
        self.assertRegex(self.done("--version").out, r"^reckon \d+\.\d+\.\d+\n$")

    def test_a_full_standard_output_is_a_failure(self):
        with open("/dev/full", "wb") as full:
            self.refused(FAILED, "standard output", "train", "--help", stdout=full)


class Refused(Case):
    def test_commands(self):
        self.refused(USAGE, ["'bogus'", "reckon --help"], "bogus")
        self.refused(USAGE, ["'trian'", "did you mean 'train'"], "trian")
        self.refused(USAGE, "unknown command", "")
        self.refused(USAGE, "unknown command", "x\ny\x1b[31m")

    def test_flags(self):
        self.refused(USAGE, "--bogus", "--bogus")
        self.refused(USAGE, "--bogus", "train", "--bogus")
        self.refused(USAGE, "--prompt", "train", "--prompt", "x")
        self.refused(USAGE, "--threads", "train", "--threads", "0")
        self.refused(USAGE, "--threads", "train", "--threads")
        self.refused(USAGE, "--temperature", "generate", "--temperature", "hot")
        self.refused(USAGE, "--top-p", "generate", "--top-p", "1.5")
        self.refused(USAGE, "--top-k", "generate", "--top-k", "-1")
        self.refused(USAGE, "--tokens", "generate", "--tokens", "0")
        self.refused(USAGE, "exclude each other", "train", "--resume", "--overwrite")
        for batches in ("0", "1e3", "-2"):
            line = self.refused(USAGE, "--batches", "eval", "--batches", batches)
            self.assertLess(len(line), 120, "a limit that a person can read")

    def test_words(self):
        self.refused(USAGE, "'foo'", "train", "foo")
        self.refused(USAGE, "model.layers", "train", "model.layers")
        self.refused(USAGE, "'=3'", "train", "=3")
        self.refused(USAGE, ["train", "device"], "bench")
        self.refused(USAGE, "'nothing'", "bench", "nothing")
        self.refused(USAGE, "one path", "inspect")
        self.refused(USAGE, "does not exist", "inspect", "nothing")
        self.refused(USAGE, "data.path", "tokenize")
        for command in ("eval", "generate"):
            self.refused(USAGE, "run.dir none", command, "run.dir=none")
        self.refused(USAGE, "run.dir none", "train", "run.dir=none", "--resume")

    def test_keys_on_the_command_line(self):
        wrong = {
            "model.layer=3": "did you mean 'model.layers'",
            "model.n_layer=3": "did you mean 'model.layers'",
            "bogus=1": "unknown key 'bogus'",
            "model.layers=abc": "expects an integer",
            "model.layers=1.5": "expects an integer",
            "model.layers=0": "at least 1",
            "model.layers=99999999999999999999": "64 bits",
            "train.precision=fp33": "fp32 or bf16",
            "train.precision=fp8": "not available in this version",
            "optim.lr=fast": "expects a number",
            "optim.lr=nan": "optim.lr",
            "optim.lr=-1": "at least 0",
            "optim.beta1=1": "below 1",
            "model.tied_head=maybe": "true or false",
            "model.preset=gpt2": "gpt2-124m",
            "memory.budget=4XB": "memory.budget",
            "data.tokenizer=bpe:12": "bpe:N",
            "device=cuda": "device",
            "seed=-1": "seed",
            "parallel.world=2": "not available in this version",
        }
        for argument, part in wrong.items():
            with self.subTest(argument):
                self.refused(USAGE, [argument.split("=")[0], part], "train", argument)
        self.assertFalse((self.folder / "runs").exists(), "nothing is made for a run that cannot be")

    def test_impossible_shapes(self):
        wrong = {
            ("model.heads=3", "model.d_model=32"): ["model.heads", "model.d_model"],
            ("model.kv_heads=3",): ["model.heads", "model.kv_heads"],
            ("model.position=rope", "model.head_dim=31"): ["model.head_dim", "even"],
            ("model.preset=cruncher", "data.path=text.txt"): ["data.path", "cruncher"],
            ("train.seq_len=1000",): ["train.seq_len", "model.max_seq_len"],
            ("model.d_model=1048576", "model.layers=65536", "model.heads=4096", "model.head_dim=256"): ["parameters", "limit"],
            ("train.micro_batch=1048576", "train.seq_len=16777216", "model.position=rope"): ["train.micro_batch", "train.seq_len"],
            ("model.d_model=9000000000", "model.vocab=9000000000"): ["model.d_model", "at most"],
            ("model.layers=65536", "train.micro_batch=1048576", "model.vocab=16777216"): ["2^63 - 1", "model.layers = 65536", "train.micro_batch = 1048576"],
            ("train.grad_accum=1048576", "train.micro_batch=1048576", "model.vocab=16777216"): ["2^63 - 1", "model.vocab = 16777216", "train.grad_accum"],
            ("train.seq_len=16777216", "train.micro_batch=256", "model.position=rope", "model.layers=64"): ["2^63 - 1", "train.seq_len = 16777216"],
        }
        for arguments, parts in wrong.items():
            with self.subTest(arguments):
                self.refused(USAGE, parts, "train", *arguments)

    def test_keys_in_a_file_name_file_and_line(self):
        wrong = {
            "[model]\nlayers = 2\nlayer = 3\n": "c.toml:3: unknown key 'model.layer'",
            "[model]\n\nlayers = 'two'\n": "c.toml:3: ",
            "[train]\nsteps = 10\nsteps = 20\n": "c.toml:3:",
            "[train\n": "c.toml:1:",
            "[optim]\nlr = -1.0\n": "c.toml:2: ",
            "bogus = 1\n": "c.toml:1: ",
        }
        for toml, part in wrong.items():
            with self.subTest(toml):
                (self.folder / "c.toml").write_text(toml)
                self.refused(USAGE, part, "train", "c.toml")
        (self.folder / "c.toml").write_bytes(b"[model]\npreset = '\xff\xfe'\n")
        self.refused(USAGE, "c.toml", "train", "c.toml")
        self.refused(USAGE, "missing.toml", "train", "missing.toml")
        (self.folder / "d.toml").mkdir()
        self.refused(USAGE, "d.toml", "train", "d.toml")

    def test_json_errors_leave_stdout_empty(self):
        self.refused(USAGE, "unknown key", "train", "bogus=1", "--json")
        self.refused(MEMORY, "memory.budget", "train", "memory.budget=10KB", "run.dir=run", "--json")


class Accepted(Case):
    def test_a_file_with_overrides_after_it(self):
        (self.folder / "c.toml").write_text("seed = 5\n[model]\nlayers = 1\nd_model = 32\nheads = 2\n[train]\nsteps = 3\nmicro_batch = 1\nseq_len = 8\n")
        self.done("train", "c.toml", "train.steps=2", "run.dir=run")
        resolved = (self.folder / "run/config.toml").read_text()
        self.assertRegex(resolved, r"(?m)^seed = 5$")
        self.assertRegex(resolved, r"(?m)^steps = 2$")
        self.assertEqual(self.checkpoints("run"), ["step-2"])

    def test_the_default_configuration_needs_no_file_and_no_key_but_the_size(self):
        self.done("train", "train.steps=1", "train.micro_batch=1")
        self.assertTrue((self.folder / "runs/latest/summary.json").exists())


if __name__ == "__main__":
    unittest.main()
