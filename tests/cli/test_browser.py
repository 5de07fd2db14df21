"""The report in a real browser: nothing is asked of the network, no script fails, readers can look at every moment, and it can be read on a
desk, in the dark, on a phone, on paper and without script."""
import unittest

from browser import Browser
from harness import TINY, Case

AREA = "document.querySelector('.plot.memory .area')"
BOX = "(() => { const box = %s.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
# Elements whose text or box reaches beyond the page, but those that scroll by themselves.
OUTSIDE = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + '.' + e.className)"""
# The smallest contrast of visible text with what is behind it (WCAG 2), for text on plain grounds.
CONTRAST = """(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  let worst = [21, ''];
  for (const e of document.querySelectorAll('main *')) {
    if (e.closest('svg') || !e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const a = luminance(rgb(getComputedStyle(e).color)), b = luminance(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 80)];
  }
  return worst;
})()"""
LIVE = "document.querySelector('#moment .when b').textContent"
WHEN = "document.querySelector('#moment .when').textContent"


class Report(Case):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        super().setUp()
        self.text()
        self.done("train", *TINY, "data.path=text.txt", "eval.every=2", "run.dir=a run's <b>&amp; dir")
        self.page = self.folder / "a run's <b>&amp; dir" / "report.html"

    def open(self, **how):
        self.browser.open(self.page, **how)
        self.assertEqual(self.browser.requests(), [self.page.resolve().as_uri()], "the page alone")
        self.assertEqual(self.browser.complaints(), [])

    def test_reads_everywhere(self):
        for how in ({}, {"dark": True}, {"width": 768}, {"width": 360, "height": 740}, {"width": 360, "height": 740, "dark": True}):
            with self.subTest(how):
                self.open(**how)
                self.assertEqual(self.browser.value("document.documentElement.scrollWidth"), how.get("width", 1200))
                self.assertEqual(self.browser.value(OUTSIDE), [])
                self.assertEqual(self.browser.value("document.querySelectorAll('svg').length > 5"), True)
                self.assertEqual(self.browser.value("[...document.querySelectorAll('svg[role=img]')].every(s => s.getAttribute('aria-label').length > 20 && s.getBoundingClientRect().height > 20)"), True)
                ratio, where = self.browser.value(CONTRAST)
                self.assertGreaterEqual(ratio, 4.5, where)
                dark = self.browser.value("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
                self.assertEqual(dark, how.get("dark", False))

    def test_names_stay_text(self):
        self.open()
        self.assertIn("a run's <b>&amp; dir", self.browser.value("document.querySelector('.where').textContent"))
        self.assertEqual(self.browser.value("document.querySelectorAll('.where b').length"), 0)

    def test_every_moment_can_be_looked_at(self):
        self.open()
        at_peak = self.browser.value("document.getElementById('moment').textContent")
        left, top, width, height = self.browser.value(BOX % AREA)
        seen = set()
        for share in (0.002, 0.25, 0.5, 0.75, 0.998):
            self.browser.move(left + share * width, top + height / 2)
            seen.add(self.browser.value(LIVE))
            self.assertFalse(self.browser.value(AREA + ".querySelector('.cursor').hidden"))
        self.assertGreater(len(seen), 3, seen)
        # The slider reaches the peak again, and there the script writes what the page said without it.
        peak = self.browser.value("JSON.parse(document.getElementById('memory-data').textContent).peak")
        self.browser.value(f"(() => {{ const s = document.querySelector('#scrub input'); s.value = {peak}; s.dispatchEvent(new Event('input')); }})()")
        self.assertEqual(self.browser.value("document.getElementById('moment').textContent"), at_peak)
        self.assertIn("At the peak", self.browser.value("document.querySelector('#scrub input').getAttribute('aria-valuetext')"))
        # Keys move it, too.
        self.browser.value("document.querySelector('#scrub input').focus()")
        self.browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
        self.assertNotIn("At the peak", self.browser.value(WHEN))
        self.assertEqual(self.browser.complaints(), [])

    def test_values_can_be_read_off_the_lines(self):
        self.open()
        self.browser.value("document.getElementById('loss').scrollIntoView({block: 'center'})")
        left, top, width, height = self.browser.value(BOX % "document.querySelector('#loss .area')")
        self.browser.move(left + width - 2, top + height / 2)
        output = "document.querySelector('output[data-of=loss]').textContent"
        self.assertRegex(self.browser.value(output), r"^step 6: train [\d.]+, validation [\d.]+$")
        self.browser.move(left + 2, top + height / 2)
        self.assertRegex(self.browser.value(output), r"^step 1: train [\d.]+$")

    def test_without_script_and_on_paper(self):
        self.browser.call("Emulation.setScriptExecutionDisabled", value=True)
        self.addCleanup(self.browser.call, "Emulation.setScriptExecutionDisabled", value=False)
        self.open(dark=True)
        pdf = self.browser.pdf()
        self.assertTrue(pdf.startswith(b"%PDF-") and len(pdf) > 20_000, len(pdf))
        self.browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        self.assertEqual(self.browser.value("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)", "paper is white")
        self.assertRegex(self.browser.value(WHEN), r"At the peak: \w+, after event .* MiB live|KiB live")
        self.assertEqual(self.browser.value("document.querySelectorAll('#scrub input').length"), 0)

    def test_of_a_plan(self):
        self.page = self.folder / "plan.html"
        self.done("report", "model.preset=llama-3-70b", "--out", "plan.html")
        self.open(width=360)
        self.assertEqual(self.browser.value("document.documentElement.scrollWidth"), 360)
        self.assertEqual(self.browser.value("document.querySelectorAll('.plot.memory').length"), 2)
        left, top, width, height = self.browser.value(BOX % AREA)
        self.browser.move(left + width / 3, top + height / 2)
        self.assertIn("GiB", self.browser.value(LIVE))
        self.assertEqual(self.browser.complaints(), [])


if __name__ == "__main__":
    unittest.main()
