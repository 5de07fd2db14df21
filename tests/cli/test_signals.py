"""check signals: what an initialization does to the size of outputs and gradients, by layer."""
import math
import unittest

from harness import MEMORY, TINY, USAGE, Case


class Layer(Case):
    def layer(self, widths):
        document = self.done("check", "signals", "--layer", widths, "--json").json()
        return document, {row["init"]: row for row in document["initializations"]}

    def assertNearVariance(self, measured, expected, count):
        # The variance of n draws is known to sqrt(2 / n) of itself; rows of one weight matrix agree a little, for which there is a factor of 2.
        self.assertLess(abs(measured - expected), 2 * 5 * math.sqrt(2 / count) * expected)

    def test_what_16384_inputs_become(self):
        document, rows = self.layer("16384,32")
        self.assertEqual((document["in"], document["out"]), (16384, 32))
        self.assertEqual(rows["normal, std 1"]["expected_output_variance"], 128**2)
        self.assertEqual(rows["normal, std 1/sqrt(in)"]["expected_output_variance"], 1)
        self.assertAlmostEqual(rows["xavier"]["expected_output_variance"], 1.996, places=3)
        self.assertAlmostEqual(rows["kaiming"]["expected_output_variance"], 2)
        for row in rows.values():
            if "trunc" in row["init"]:
                continue  # cut: a little less than the rule's
            self.assertNearVariance(row["output"]["variance"], row["expected_output_variance"], row["output"]["count"])
            self.assertNearVariance(row["gradient"]["variance"], row["expected_gradient_variance"], 32 * 256)
            self.assertEqual(row["output"]["not_finite"], 0)
            self.assertGreater(row["output"]["max_abs"], math.sqrt(row["output"]["variance"]))

    def test_table(self):
        out = self.done("check", "signals", "--layer", "100,50").out
        for word in ("xavier", "kaiming", "1/sqrt(in)", "expected", "variance"):
            self.assertIn(word, out)

    def test_refusals(self):
        for widths in ("", "x", "1", "1,", ",1", "1,2,3", "0,5", "5,-1", "99999999999999999999,1", "1048577,1", "1048576,1048576"):
            if widths:
                self.refused(USAGE, "--layer wants two widths IN,OUT", "check", "signals", "--layer", widths)
        line = self.refused(USAGE, "", "check", "signals", "--layer", "3")
        self.assertEqual(line, "reckon: --layer wants two widths IN,OUT of at most 268435456 weights, as in 16384,32; got '3'")
        self.refused(USAGE, "--layer needs a value", "check", "signals", "--layer")

    def test_keys_that_a_layer_does_not_have(self):
        self.done("check", "signals", "--layer", "8,4", "seed=3")
        self.refused(USAGE, ["--layer", "leave model.init=xavier out"], "check", "signals", "--layer", "8,4", "seed=3", "model.init=xavier")
        (self.folder / "c.toml").write_text("seed = 5\n")
        self.refused(USAGE, ["--layer", "leave c.toml out"], "check", "signals", "c.toml", "--layer", "8,4")


class Model(Case):
    def signals(self, *arguments):
        return self.done("check", "signals", "--json", *arguments).json()

    def test_shows_every_layer_of_a_decoder(self):
        document = self.signals(*TINY, "model.layers=2")
        rows = document["signals"]
        modules = [row["module"] for row in rows]
        for module in ("embed", "blocks.0.norm1", "blocks.0.attn", "blocks.0.norm2", "blocks.0.mlp", "blocks.1", "norm", "head", "loss"):
            self.assertIn(module, modules)
        for row in rows:
            self.assertEqual(row["output"]["not_finite"], 0)
            self.assertIsNotNone(row["gradient"], row)
            self.assertEqual(row["gradient"]["count"], row["output"]["count"])
            self.assertEqual(row["output"]["count"], math.prod(row["shape"]))
        loss = rows[-1]
        self.assertEqual((loss["operation"], loss["gradient"]["mean"], loss["gradient"]["max_abs"]), ("cross_entropy", 1, 1))
        self.assertEqual(loss["output"]["mean"], document["loss"])
        logits = next(row for row in rows if row["module"] == "head")
        # Softmax less one-hot: each row sums to zero, and its largest entry is near -1 / tokens.
        self.assertLess(abs(logits["gradient"]["mean"]), 1e-8)
        self.assertAlmostEqual(logits["gradient"]["max_abs"] * 2 * 16, 1, delta=0.05)
        # A norm's output has mean 0 and variance 1 before it is trained.
        for row in rows:
            if row["module"] == "norm" or row["module"].endswith("norm1"):
                self.assertAlmostEqual(row["output"]["variance"], 1, delta=0.05)

    def test_shows_what_explodes_and_what_does_not(self):
        cruncher = ["model.preset=cruncher", "model.layers=4", "model.d_model=256", "train.micro_batch=64"]
        variances = {}
        for init in (["model.init=normal", "model.init_std=1"], ["model.init=xavier"], ["model.init=kaiming"]):
            rows = self.signals(*cruncher, *init)["signals"]
            layers = [row for row in rows if row["module"].startswith("layers.")]
            self.assertEqual([row["module"] for row in layers], [f"layers.{i}" for i in range(4)])
            variances[init[0]] = [row["output"]["variance"] for row in layers]
            # Backward through square layers multiplies as forward does.
            gradients = [row["gradient"]["variance"] for row in layers]
            for a, b in zip(gradients[1:], gradients):
                factor = {"model.init=normal": 256, "model.init=xavier": 1, "model.init=kaiming": 2}[init[0]]
                self.assertAlmostEqual(math.log2(b / a), math.log2(factor), delta=0.6)
        for depth in range(4):
            self.assertAlmostEqual(math.log2(variances["model.init=normal"][depth]), 8 * (depth + 1), delta=0.6)
            self.assertAlmostEqual(math.log2(variances["model.init=xavier"][depth]), 0, delta=0.6)
            self.assertAlmostEqual(math.log2(variances["model.init=kaiming"][depth]), depth + 1, delta=0.6)

    def test_is_the_same_at_any_number_of_threads(self):
        one = self.done("check", "signals", *TINY, "model.dropout=0.1", "--threads", "1").out
        self.assertEqual(self.done("check", "signals", *TINY, "model.dropout=0.1", "--threads", "3").out, one)
        self.assertIn("dropout", one)
        self.assertIn("blocks.0.attn", one)

    def test_every_number_format(self):
        for precision in ("fp32", "bf16", "fp16"):
            rows = self.signals(*TINY, f"train.precision={precision}")["signals"]
            self.assertTrue(all(row["gradient"] for row in rows))

    def test_names_what_is_not_finite(self):
        out = self.done("check", "signals", "model.preset=cruncher", "model.layers=6", "model.d_model=512", "model.init_std=1000", "train.precision=fp16").out
        self.assertIn("NaN or infinite", out)

    def test_refusals(self):
        self.refused(USAGE, "train.precision=bf16", "check", "signals", "train.precision=fp8")
        self.refused(USAGE, "model.int", "check", "signals", "model.int=xavier")
        self.refused(USAGE, "sigmals", "check", "signals", "sigmals")
        self.refused(USAGE, "sigmals", "check", "sigmals")
        self.refused(MEMORY, "lower train.micro_batch", "check", "signals", *TINY, "memory.budget=1000")
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    unittest.main()
