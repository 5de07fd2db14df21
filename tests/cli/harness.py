"""tests/cli: runs the program as a user would. Knows nothing of its inside but the contract: arguments, exit codes, files, the JSON schema."""
import ctypes
import json
import os
import pathlib
import resource
import subprocess
import tempfile
import unittest

PROGRAM = pathlib.Path(os.environ.get("RECKON") or pathlib.Path(__file__).parents[2] / "build/release/reckon").resolve()
DONE, FAILED, USAGE, MEMORY, CORRUPT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 130, 143
TINY = ["model.layers=1", "model.d_model=32", "model.heads=2", "train.micro_batch=2", "train.seq_len=16", "train.steps=6"]
CATEGORIES = "parameter gradient optimizer master activation temporary data communication cache".split()
PHASES = "init data forward backward step eval save".split()
RUNTIME = "heap stacks program libraries generated_code files system unnamed".split()
MIB = 1 << 20
SLOWNESS = int(os.environ.get("RECKON_SLOWNESS", "1"))  # how much slower than a release build the program may be
LONGEST = 120 * SLOWNESS  # seconds; nothing here takes more than a few, but machines stall


def limit_file_size(size):
    """A preexec_fn: every write beyond `size` bytes of a file fails, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def without_root_rights():
    """A preexec_fn: file modes hold for root too."""
    libc = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    if os.geteuid() == 0:
        for capability in (dac_override, dac_read_search):
            if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")


class Result:
    def __init__(self, process):
        self.code, self.out, self.err = process.returncode, process.stdout.decode(), process.stderr.decode()
        self.arguments = process.args[1:]

    def __str__(self):
        return f"reckon {' '.join(map(str, self.arguments))}\nexit code {self.code}\nstdout: {self.out[:500]}\nstderr: {self.err[:1500]}"

    def json(self):
        """The one document on stdout."""
        return json.loads(self.out, parse_constant=lambda word: (_ for _ in ()).throw(ValueError(word)))


class Case(unittest.TestCase):
    """A folder of its own for each test, as the working directory of the program."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="reckon-cli-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.environment = {**os.environ, "RECKON_CACHE": str(self.folder / "cache"), "OMP_WAIT_POLICY": "passive", "NO_COLOR": "1"}
        for name in ("RECKON_DEBUG", "RECKON_PROGRAM"):  # of whoever runs the tests
            self.environment.pop(name, None)

    def reckon(self, *arguments, **options):
        process = subprocess.run([str(PROGRAM), *(a if isinstance(a, bytes) else str(a) for a in arguments)], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                                 stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, timeout=LONGEST, **options)
        if process.stdout is None:
            process.stdout = b""
        return Result(process)

    def start(self, *arguments):
        """A run in the background; the test waits for it."""
        process = subprocess.Popen([str(PROGRAM), *map(str, arguments)], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(lambda: (process.poll() is None and process.kill(), process.wait(), process.stdout.close(), process.stderr.close()))
        return process

    def done(self, *arguments, **options):
        result = self.reckon(*arguments, **options)
        self.assertEqual(result.code, DONE, str(result))
        return result

    def refused(self, code, parts, *arguments, only=True, **options):
        """It ends with this code and one clear line that holds the parts; `only`: nothing else is on stderr. Nothing on stdout."""
        result = self.reckon(*arguments, **options)
        self.assertEqual(result.code, code, str(result))
        self.assertEqual(result.out, "", str(result))
        lines = result.err.splitlines()
        self.assertTrue(lines and lines[-1].startswith("reckon: ") and result.err.endswith("\n"), str(result))
        self.assertEqual(sum(line.startswith("reckon: ") for line in lines), 1, str(result))
        if only and code != MEMORY:  # a refusal for want of memory is explained in the lines before it
            self.assertEqual(len(lines), 1, str(result))
        self.assertLess(len(lines[-1]), 1000, str(result))
        for part in [parts] if isinstance(parts, str) else parts:
            self.assertIn(part, lines[-1], str(result))
        return lines[-1]

    def files(self):
        """Everything in the test's folder but the machine's cache."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if "cache" not in p.relative_to(self.folder).parts[:1])

    def text(self, name="text.txt", lines=300):
        path = self.folder / name
        path.write_text("".join(f"In line {i} of the text there are {i * i % 91} words or so.\n" for i in range(lines)))
        return path

    def checkpoint_files(self, run, step):
        folder = self.folder / run / f"checkpoints/step-{step}"
        return {name: (folder / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors", "state.json")}

    def checkpoints(self, run):
        folder = self.folder / run / "checkpoints"
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []

    def metrics(self, run):
        """(step, kind) -> the line's values that time does not change; kind is "train" or "validation"."""
        steps = {}
        for line in map(json.loads, (self.folder / run / "metrics.jsonl").read_text().splitlines()):
            key = (line["step"], "train" if "loss" in line else "validation")
            self.assertNotIn(key, steps)
            steps[key] = {name: value for name, value in line.items() if name not in ("seconds", "tokens_per_second")}
        return steps

    def check_report(self, report):
        """Every key of the contract is there; categories add up to the peak."""
        self.assertEqual(set(report), {"model", "memory", "flops", "step_seconds", "tokens_per_second", "mfu", "hfu", "comm", "loss"})
        self.assertEqual(set(report["model"]), {"parameters"})
        self.assertEqual(set(report["memory"]), {"peak_bytes", "arena_bytes", "at_peak", "phases", "trace_hash"})
        self.assertEqual(set(report["memory"]["at_peak"]), set(CATEGORIES))
        self.assertEqual(set(report["memory"]["phases"]), set(PHASES))
        self.assertEqual(set(report["flops"]), {"matmul_per_step", "vector_per_step", "model_per_step", "hardware_per_step"})
        self.assertEqual(set(report["comm"]), {"bytes_per_step"})
        self.assertEqual(set(report["loss"]), {"train", "validation", "bits_per_byte"})
        memory = report["memory"]
        self.assertEqual(sum(memory["at_peak"].values()), memory["peak_bytes"])
        self.assertEqual(max(memory["phases"].values()), memory["peak_bytes"])
        self.assertGreaterEqual(memory["arena_bytes"], memory["peak_bytes"])

    def check_summary(self, summary):
        self.assertEqual(set(summary), {"predicted", "measured", "process"})
        process = summary["process"]
        self.assertEqual(set(process), {"predicted_rss_bytes", "peak_rss_bytes", "predicted_arena_bytes", "arena_bytes", "predicted_runtime", "runtime"})
        for rss, arena, runtime in (("predicted_rss_bytes", "predicted_arena_bytes", "predicted_runtime"), ("peak_rss_bytes", "arena_bytes", "runtime")):
            self.assertEqual(set(process[runtime]), set(RUNTIME))
            self.assertIsNotNone(process[rss])
            self.assertLessEqual(process[arena] + sum(process[runtime].values()), process[rss] + MIB)  # sampled after some steps; the kernel counts in batches
        for part in ("predicted", "measured"):
            self.check_report(summary[part])
