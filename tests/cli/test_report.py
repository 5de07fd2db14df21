"""The command report, and what train leaves of it: files that are there after every end of a run, written again as they were."""
import json
import unittest

from harness import CORRUPT, FAILED, TINY, USAGE, Case


class Report(Case):
    def train(self, *arguments):
        self.done("train", *TINY, "data.path=" + str(self.text()), "run.dir=run", *arguments)
        return self.folder / "run" / "report.html", self.folder / "run" / "trace.json"

    def check_trace(self, path, timing):
        trace = json.loads(path.read_text())
        self.assertEqual(trace["otherData"]["timing"], timing)
        times = [event["ts"] for event in trace["traceEvents"]]
        self.assertEqual(times, sorted(times))
        return trace["traceEvents"]

    def test_train_leaves_a_page_and_a_measured_trace(self):
        page, trace = self.train()
        html = page.read_text()
        self.assertTrue(html.startswith("<!doctype html>") and html.endswith("</html>\n"))
        self.assertIn("equal to the byte", html)
        self.assertIn("Time, measured", html)
        events = self.check_trace(trace, "measured")
        self.assertGreater(sum(event["dur"] for event in events if event.get("cat") == "op"), 0)
        summary = json.loads((self.folder / "run" / "summary.json").read_text())
        live = max(event["args"]["bytes"] for event in events if event["name"] == "live")
        phases = summary["measured"]["memory"]["phases"]
        self.assertEqual(live, max(phases[phase] for phase in ("forward", "backward", "step")))

    def test_a_run_that_stops_early_has_them_too(self):
        page, trace = self.train("train.stop_after=1")
        self.check_trace(trace, "measured")
        first = page.read_text()
        self.done("train", "run.dir=run", "--resume", "train.stop_after=0")
        self.check_trace(trace, "measured")
        self.assertNotEqual(page.read_text(), first)
        finished = trace.read_bytes(), page.read_bytes()
        self.done("train", "run.dir=run", "--resume")  # nothing is left to do
        self.assertEqual(trace.read_bytes(), finished[0])
        self.assertIn("Time, measured", page.read_text())

    def test_report_writes_them_again(self):
        page, trace = self.train()
        before = page.read_bytes(), trace.read_bytes()
        page.unlink()
        self.assertEqual(self.done("report", "run.dir=run", "--json").json(), {"report": "run/report.html", "trace": "run/trace.json"})
        self.assertEqual((page.read_bytes(), trace.read_bytes()), before)
        trace.unlink()
        self.assertIn("run/report.html", self.done("report", "run.dir=run").out)
        self.check_trace(trace, "order")
        self.assertIn("there are no times", page.read_text())

    def test_without_metrics_or_summary(self):
        page, _ = self.train()
        (self.folder / "run" / "metrics.jsonl").unlink()
        (self.folder / "run" / "summary.json").unlink()
        self.done("report", "run.dir=run")
        self.assertNotIn('id="loss"', page.read_text())

    def test_of_a_plan(self):
        self.done("report", "model.preset=llama-3-70b", "memory.budget=4GiB", "--out", "big.html")
        self.assertIn("Does not fit", (self.folder / "big.html").read_text())
        self.assertLess((self.folder / "big.html").stat().st_size, 2_000_000)
        self.check_trace(self.folder / "big.trace.json", "order")
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["big.html", "big.trace.json"])

    def test_refusals(self):
        self.refused(USAGE, ["runs/latest", "--out"], "report")
        self.refused(USAGE, "nowhere", "report", "run.dir=nowhere")
        self.refused(USAGE, "unexpected argument 'word'", "report", "word")
        self.refused(FAILED, "no/such", "report", "--out", "no/such/folder.html", *TINY)
        page, trace = self.train()
        self.refused(USAGE, "leave other keys out", "report", "run.dir=run", "train.steps=7")
        kept = trace.read_bytes()
        trace.write_bytes(kept[:1000])
        self.refused(CORRUPT, "trace.json", "report", "run.dir=run")
        trace.write_bytes(kept)
        (self.folder / "run" / "metrics.jsonl").write_text("{}\n")
        self.refused(CORRUPT, "metrics.jsonl line 1", "report", "run.dir=run")
        (self.folder / "run" / "summary.json").write_text("{")
        self.refused(CORRUPT, "", "report", "run.dir=run")


if __name__ == "__main__":
    unittest.main()
