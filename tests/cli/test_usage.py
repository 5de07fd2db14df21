"""Help, commands, flags, keys: what is accepted, and one clear line with exit code 2 for what is not."""
import re
import unittest

from harness import CORRUPT, DONE, FAILED, INTERRUPTED, MEMORY, PROGRAM, TINY, USAGE, Case

COMMANDS = ["plan", "train", "eval", "generate", "tokenize", "inspect", "report", "bench train", "bench device", "bench ops", "check", "check signals"]


class Help(Case):
    def test_lists_the_commands_and_exit_codes(self):
        for arguments in ([], ["--help"], ["-h"], ["help"]):
            out = self.done(*arguments).out
            for command in COMMANDS:
                self.assertRegex(out, rf"(?m)^ +{command} ")
            for code in (DONE, FAILED, USAGE, MEMORY, CORRUPT, INTERRUPTED):
                self.assertRegex(out, rf"\b{code} ")

    def keys_in(self, out):
        return set(re.findall(r"(?m)^  ([a-z]+(?:\.[a-z_0-9]+)?)(?:=| {2,})", out[out.find("Keys"):])) if "Keys" in out else set()

    def test_of_a_command_shows_flags_an_example_and_the_keys_it_uses(self):
        used = {
            "eval": {"run.dir", "data.path", "data.validation_fraction", "train.micro_batch", "train.seq_len", "memory.budget", "device"},
            "generate": {"run.dir", "seed", "memory.budget", "device"},
            "tokenize": {"data.path", "data.tokenizer"},
            "inspect": set(),
            "bench device": set(),
            "bench ops": set(),
            "check": set(),
        }
        for command in COMMANDS:
            out = self.done(*command.split(), "--help").out
            self.assertEqual(out, self.done("help", *command.split()).out)
            self.assertEqual(out, self.done(*command.split(), "-h").out)
            self.assertIn("--json", out)
            self.assertIn(f"Example: {PROGRAM} {command}", out)
            self.assertLessEqual(max(map(len, out.splitlines())), 110 + len(str(PROGRAM)))
            for noise in ("INT", "FLOAT", "TEXT:", "BOOLEAN", "[OPTIONS]"):
                self.assertNotIn(noise, out)
            if command in used:
                self.assertEqual(self.keys_in(out), used[command], out)
        keys = self.keys_in(self.done("train", "--help").out)
        self.assertLessEqual({"model.preset", "train.micro_batch", "optim.lr", "data.path", "memory.budget", "run.dir", "seed", "checkpoint.keep"}, keys)
        bench = self.keys_in(self.done("bench", "train", "--help").out)
        self.assertEqual(keys - bench, {key for key in keys if key.split(".")[0] in ("data", "eval", "checkpoint", "run")})

    def test_of_commands_in_a_group(self):
        out = self.done("bench", "--help").out
        self.assertEqual(out, self.done("help", "bench").out)
        for kind in ("train", "device", "ops"):
            self.assertRegex(out, rf"(?m)^ +bench {kind} ")
        self.assertNotEqual(self.done("bench", "train", "--help").out, self.done("bench", "device", "--help").out)

    def test_names_the_program_as_it_was_called(self):
        self.assertIn(f"usage: {PROGRAM} ", self.done("--help").out)
        self.environment["RECKON_PROGRAM"] = "./reckon"  # as the launcher says
        self.assertIn("usage: ./reckon ", self.done("--help").out)
        self.assertIn("Example: ./reckon train ", self.done("train", "--help").out)
        self.refused(USAGE, "./reckon help lists them", "bogus")
        self.refused(USAGE, "did you mean 'demo'", "dmeo")
        self.assertIn("run `./reckon bench device` once", self.done("train", *TINY, "run.dir=run").err)

    def test_version(self):
        self.assertRegex(self.done("--version").out, r"^reckon \d+\.\d+\.\d+\n$")

    def test_a_full_standard_output_is_a_failure(self):
        with open("/dev/full", "wb") as full:
            self.refused(FAILED, "standard output", "train", "--help", stdout=full)

    def test_a_reader_that_has_enough_is_no_failure_to_speak_of(self):
        process = self.start("train", "--help")
        process.stdout.close()
        process.wait()
        self.assertEqual(process.stderr.read(), b"")


class Refused(Case):
    def test_commands(self):
        self.refused(USAGE, ["'bogus'", "reckon help"], "bogus")
        self.refused(USAGE, "unknown command 'bogus'", "help", "bogus")
        self.refused(USAGE, "did you mean 'help'", "hlep")
        self.refused(USAGE, ["'trian'", "did you mean 'train'"], "trian")
        self.refused(USAGE, "unknown command", "")
        self.refused(USAGE, "unknown command", "x\ny\x1b[31m")

    def test_flags(self):
        self.refused(USAGE, "--bogus", "--bogus")
        self.refused(USAGE, ["--json stands before the command", "COMMAND --json"], "--json", "train")
        self.refused(USAGE, "--bogus", "train", "--bogus")
        self.refused(USAGE, "--prompt", "train", "--prompt", "x")
        self.refused(USAGE, "--threads needs a value: an integer from 1 to 4096", "train", "--threads")
        self.refused(USAGE, "--threads was given more than once", "train", "--threads", "1", "--threads", "2")
        self.refused(USAGE, "--json takes no value", "train", "--json=3")
        self.refused(USAGE, "--resume takes no value", "train", "--resume=no")
        self.refused(USAGE, "exclude each other", "train", "--resume", "--overwrite")

    def test_numbers_of_flags_name_flag_range_and_value(self):
        wrong = [
            ("train --threads 0", "--threads expects an integer from 1 to 4096, got '0'"),
            ("train --threads two", "--threads expects an integer from 1 to 4096, got 'two'"),
            ("train --threads 99999999999999999999", "--threads expects an integer from 1 to 4096, got '99999999999999999999'"),
            ("train --threads=0x2", "--threads expects an integer from 1 to 4096, got '0x2'"),
            ("generate --temperature hot", "--temperature expects a number from 0 to 100, got 'hot'"),
            ("generate --temperature nan", "--temperature expects a number from 0 to 100, got 'nan'"),
            ("generate --top-p 1.5", "--top-p expects a number from 0 to 1, got '1.5'"),
            ("generate --top-k -1", "--top-k expects an integer from 0 to 4294967296, got '-1'"),
            ("generate --tokens 0", "--tokens expects an integer from 1 to 4294967296, got '0'"),
            ("generate --tokens 1e3", "--tokens expects an integer from 1 to 4294967296, got '1e3'"),
            ("eval --batches -2", "--batches expects an integer from 1 to 4294967296, got '-2'"),
        ]
        for arguments, line in wrong:
            with self.subTest(arguments):
                self.assertEqual(self.refused(USAGE, "", *arguments.split()), "reckon: " + line)

    def test_flags_that_were_meant_otherwise(self):
        wrong = [
            ("train --resum", "unknown flag '--resum', did you mean '--resume'?"),
            ("generate --promt x", "unknown flag '--promt', did you mean '--prompt'?"),
            ("train --seed 3", "--seed is no flag but a key: write seed=3"),
            ("generate --seed=3", "--seed is no flag but a key: write seed=3"),
            ("train --steps 100", "--steps is no flag but a key: write train.steps=100"),
            ("train --train.steps 100", "--train.steps is no flag but a key: write train.steps=100"),
            ("train --batch-size 8", "--batch-size is no flag but a key: write train.micro_batch=8"),
            ("train --every 5", "--every is no flag but a key: write eval.every=5 or checkpoint.every=5"),
            ("train --lr", "--lr is no flag but a key: write optim.lr=VALUE"),
            ("train --lr --json", "--lr is no flag but a key: write optim.lr=VALUE"),
            ("train --learning-rat 1", "unknown flag '--learning-rat', did you mean 'optim.lr=1'?"),
            ("train --prompt x", "--prompt is no flag of train; it belongs to generate"),
            ("bench device --profile", "--profile is no flag of bench device; it belongs to bench train"),
            ("train steps 100", "'steps' is a key without a value: write train.steps=VALUE"),
        ]
        for arguments, line in wrong:
            with self.subTest(arguments):
                self.assertTrue(self.refused(USAGE, "", *arguments.split()).startswith("reckon: " + line))
        for arguments in ("generate --steps 5", "inspect --seed 5", "train -x"):  # no key that the command uses, and near to nothing
            line = self.refused(USAGE, "unknown flag", *arguments.split())
            self.assertNotIn("did you mean", line)
            self.assertNotIn("write", line)

    def test_words(self):
        self.refused(USAGE, "'foo'", "train", "foo")
        (self.folder / "my text").write_text("a text")
        (self.folder / "folder").mkdir()
        self.refused(USAGE, ["'my text'", "write 'data.path=my text'"], "train", "my text")
        self.refused(USAGE, ["'folder'", "write run.dir=folder"], "generate", "folder")
        self.refused(USAGE, "model.layers", "train", "model.layers")
        self.refused(USAGE, "'=3'", "train", "=3")
        self.refused(USAGE, ["train", "device"], "bench")
        self.refused(USAGE, "takes no 'seed=1'", "bench", "device", "seed=1")
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
            "model.layers=abc": "expects an integer from 1 to 65536, got \"abc\"",
            "model.layers=1.5": "expects an integer",
            "model.layers=0": "expects an integer from 1 to 65536, got 0",
            "model.layers=99999999999999999999": "from 1 to 65536, got 99999999999999999999",
            "train.precision=fp33": "fp32, bf16, fp16 or fp8",
            "train.fp8_amax_history=0": "expects an integer from 1 to 65536, got 0",
            "optim.lr=fast": "expects a number",
            "optim.lr=nan": "optim.lr",
            "optim.lr=-1": "expects a number from 0 to 1000, got -1",
            "optim.beta1=1": "expects a number from 0 to below 1, got 1",
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

    def test_values_that_are_nearly_right(self):
        wrong = [
            ("plan optim.name=lamp", 'argument \'optim.name=lamp\': optim.name expects sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lamb or adamw8bit, got "lamp", did you mean "lamb"?'),
            ("plan optim.schedule=wsdd", 'argument \'optim.schedule=wsdd\': optim.schedule expects constant, cosine, linear, wsd or inverse_sqrt, got "wsdd", did you mean "wsd"?'),
            ("plan model.dropout=1.5", "argument 'model.dropout=1.5': model.dropout expects a number from 0 to below 1, got 1.5"),
            ("plan model.preset=cruncher model.dropout=0.1", "model.dropout = 0.1: the cruncher has no residual stream to drop from: leave it out"),
            ("check signals model.initt=x", "argument 'model.initt=x': unknown key 'model.initt', did you mean 'model.init'?"),
            ("bench ops sofmax", "bench ops has no 'sofmax', did you mean 'softmax'?"),
        ]
        for arguments, line in wrong:
            with self.subTest(arguments):
                self.assertEqual(self.refused(USAGE, "", *arguments.split()), "reckon: " + line)
        line = 'reckon: optim.groups: "nothing" matches no parameter; they have names like embed.weight, and * stands for any characters'
        for command in (["plan"], ["train"], ["bench", "train"]):
            self.assertEqual(self.refused(USAGE, "", *command, *TINY, "optim.groups=nothing lr=2"), line)
        self.refused(USAGE, ["optim.groups", "would never count"], "plan", *TINY, "optim.groups=* lr=2; embed.* lr=1")
        for operation in ("xyzzyxyzzy", "sum of rows", "--json=3"):
            line = self.refused(USAGE, "", "bench", "ops", operation)
            self.assertIn("--json takes no value" if operation.startswith("-") else "bench ops has no", line)
        self.refused(USAGE, ["bench ops has no 'xyzzyxyzzy', it has add ", " softmax ", " conv2d "], "bench", "ops", "softmax", "xyzzyxyzzy")
        self.assertEqual(self.files(), [])

    def test_impossible_shapes(self):
        wrong = {
            ("model.heads=3", "model.d_model=32"): ["model.heads", "model.d_model"],
            ("model.kv_heads=3",): ["model.heads", "model.kv_heads"],
            ("model.position=rope", "model.head_dim=31"): ["model.head_dim", "even"],
            ("model.preset=cruncher", "data.path=text.txt"): ["data.path", "cruncher"],
            ("train.seq_len=1000",): ["train.seq_len", "model.max_seq_len"],
            ("model.d_model=1048576", "model.layers=65536", "model.heads=4096", "model.head_dim=256"): ["parameters", "limit"],
            ("train.micro_batch=1048576", "train.seq_len=16777216", "model.position=rope"): ["train.micro_batch", "train.seq_len"],
            ("model.d_model=9000000000", "model.vocab=9000000000"): ["model.d_model", "from 1 to 1048576, got 9000000000"],
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
