"""plan --napkin: answers, documents and refusals; and the page of worked examples is what the program prints."""
import pathlib
import subprocess
import sys
import unittest

from harness import PROGRAM, USAGE, Case

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts/make_worked_examples.py"
LADDER = pathlib.Path(__file__).parents[2] / "scripts/make_ladder.py"


class Napkin(Case):
    def test_answers_a_question(self):
        out = self.done("plan", "--napkin", "training-days", "params=70e9", "tokens=15e12", "gpus=1024", "profile=h100-sxm", "mfu=0.5").out
        self.assertIn("143.9 days", out)
        self.assertIn("$ reckon plan --napkin training-days params=70e9", out)

    def test_answers_all_and_lists_the_topics(self):
        out = self.done("plan", "--napkin").out
        document = self.done("plan", "--napkin", "--json").json()
        commands = [answer["command"] for answer in document["answers"]]
        self.assertEqual(len(commands), len(set(commands)))
        for command in commands:
            self.assertEqual(out.count(f"$ {command}\n"), 1)
        for topic in {answer["topic"] for answer in document["answers"]}:
            self.assertRegex(out, rf"(?m)^  {topic} ")

    def test_documents_have_one_shape(self):
        for answer in self.done("plan", "--napkin", "--json").json()["answers"]:
            self.assertEqual(set(answer), {"topic", "command", "question", "arguments", "values", "why", "notes"})
            for value in answer["values"]:
                self.assertEqual(set(value), {"kind", "name", "value", "unit", "how"})
                self.assertIn(value["kind"], ("napkin", "exact", "mistake"))
                self.assertIsInstance(value["value"], (int, float))

    def test_one_answer_is_the_same_alone(self):
        whole = {answer["command"]: answer for answer in self.done("plan", "--napkin", "--json").json()["answers"]}
        for command in ("reckon plan --napkin cruncher", "reckon plan --napkin tensor-bytes shape=32x32 dtype=f32 count=2"):
            self.assertEqual(self.done(*command.split()[1:], "--json").json()["answers"], [whole[command]])

    def test_refusals(self):
        self.refused(USAGE, ["'matmul-flop'", "did you mean 'matmul-flops'"], "plan", "--napkin", "matmul-flop")
        self.refused(USAGE, ["'parms'", "did you mean 'params'"], "plan", "--napkin", "training-days", "parms=1")
        self.refused(USAGE, ["profile 'h100-sxn'", "did you mean 'h100-sxm'"], "plan", "--napkin", "mfu", "profile=h100-sxn")
        self.refused(USAGE, "above 0", "plan", "--napkin", "mfu", "achieved=nan")
        self.refused(USAGE, "beyond what a number can hold", "plan", "--napkin", "training-days", "params=1e300", "tokens=1e300")
        self.refused(USAGE, "after a topic", "plan", "--napkin", "params=1")
        self.refused(USAGE, "one topic", "plan", "--napkin", "mfu", "chinchilla")
        self.refused(USAGE, "x\\n", "plan", "--napkin", "x\ny")


class WorkedExamples(unittest.TestCase):
    def test_are_what_the_program_prints(self):
        process = subprocess.run([sys.executable, "-B", str(SCRIPT), str(PROGRAM), "--check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(process.returncode, 0, process.stdout[:4000])

    def test_the_ladder_has_the_planned_bytes(self):
        process = subprocess.run([sys.executable, "-B", str(LADDER), str(PROGRAM), "--check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(process.returncode, 0, process.stdout[:4000])


if __name__ == "__main__":
    unittest.main()
