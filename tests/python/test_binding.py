"""The binding from end to end: one layer, a Hessian, text, a model; and that errors carry the library's message."""
import os
import pathlib
import tempfile
import unittest

import numpy as np

import ganq

SOURCE = pathlib.Path(os.environ["GANQ_SOURCE_DIR"])
MODEL = SOURCE / "examples/data/tiny-llama"
CALIBRATION = SOURCE / "examples/data/text/calibration.jsonl"
EVALUATION = SOURCE / "examples/data/text/evaluation.jsonl"
N, K, M = 24, 70, 5


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class LayerTest(unittest.TestCase):
    def setUp(self):
        self.ctx = ganq.Context(threads=2, numerics="exact")
        self.addCleanup(self.ctx.close)
        self.w = random(N, K)
        self.x = random(300, K, seed=1)
        self.h = ganq.Hessian(self.ctx, K)
        self.addCleanup(self.h.close)
        self.h.add(self.x)

    def test_context(self):
        self.assertEqual(self.ctx.threads, 2)
        self.assertEqual(self.ctx.numerics, "exact")
        self.assertIn("cpu", self.ctx.device_name)
        with self.assertRaises(ValueError):
            ganq.Context(device="tpu")

    def test_hessian(self):
        expected = self.x.astype(np.float64).T @ self.x
        self.assertEqual((self.h.dim, self.h.tokens), (K, 300))
        np.testing.assert_allclose(self.h.to_numpy(np.float64), expected, atol=1e-3)
        with ganq.Hessian(self.ctx, K) as other:
            other.add(self.x[:, ::-1][:, ::-1])  # a view with a negative stride and back: passed as it is
            strided = np.zeros((300, 2 * K), np.float32)
            strided[:, :K] = self.x
            other.add(strided[:, :K])  # row stride 2K, no copy
            self.h.merge(other)
        self.assertEqual(self.h.tokens, 900)
        np.testing.assert_allclose(self.h.to_numpy(), 3 * expected, rtol=1e-4, atol=1e-2)
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "h.safetensors"
            self.h.save(path)
            with ganq.Hessian.load(self.ctx, path) as loaded:
                np.testing.assert_array_equal(loaded.to_numpy(), self.h.to_numpy())
        with self.assertRaises(ganq.NumericError) as caught:
            bad = self.x.copy()
            bad[7, 3] = np.nan
            self.h.add(bad)
        self.assertIn("7", str(caught.exception))

    def test_quantize_and_multiply(self):
        errors = []
        for bits in (2, 3, 4):
            with ganq.Layer.quantize(self.ctx, self.w, self.h, bits=bits) as layer:
                info, report = layer.info(), layer.report()
                self.assertEqual((info.N, info.K, info.bits), (N, K, bits))
                errors.append(report.E)
                dense = layer.dequantize()
                y = layer.matmul(self.x[:M])
                np.testing.assert_allclose(y, self.x[:M] @ dense.T, rtol=1e-4, atol=1e-4)
                half = layer.matmul(self.x[:M].astype(np.float16))
                self.assertEqual(half.dtype, np.float16)
                np.testing.assert_allclose(half.astype(np.float32), y, rtol=0.02, atol=0.05)
                vector = layer.matmul(self.x[0])
                self.assertEqual(vector.shape, (N,))
                np.testing.assert_allclose(vector, y[0], rtol=1e-5, atol=1e-5)
                codes, lut = layer.codes_and_lut()
                self.assertLess(codes.max(), 2**bits)
                np.testing.assert_array_equal(np.take_along_axis(lut, codes.astype(int), 1), dense)
                error, norm = layer.objective(self.w, self.h)
                self.assertAlmostEqual(error / norm, report.E, delta=1e-3 * report.E)
                self.assertTrue(report.steps)
                self.assertGreater(report.seconds_by_stage["assign"], 0)
        self.assertGreater(errors[0], errors[1])
        self.assertGreater(errors[1], errors[2])

    def test_outliers_lower_the_error(self):
        with ganq.Layer.quantize(self.ctx, self.w, self.h, bits=3) as plain, \
                ganq.Layer.quantize(self.ctx, self.w, self.h, bits=3, outlier_ratio=0.02) as sparse:
            self.assertGreater(sparse.info().outliers, 0)
            self.assertLess(sparse.report().E, plain.report().E)

    def test_codes_from_elsewhere(self):
        codes = (np.arange(N * K) % 8).astype(np.uint8).reshape(N, K)
        lut = np.sort(random(N, 8, seed=2).astype(np.float16), axis=1)
        rowptr = np.arange(N + 1)
        sparse = (rowptr, np.full(N, 5), np.full(N, 0.5, np.float32))
        with ganq.Layer.from_codes(self.ctx, 3, codes, lut, bias=np.ones(N, np.float32), outliers=sparse) as layer:
            expected = np.take_along_axis(lut.astype(np.float32), codes.astype(int), 1)
            expected[:, 5] += 0.5
            np.testing.assert_array_equal(layer.dequantize(), expected)
            np.testing.assert_allclose(layer.matmul(self.x[:M]), self.x[:M] @ expected.T + 1, rtol=1e-4, atol=1e-4)
            with tempfile.TemporaryDirectory() as directory:
                path = pathlib.Path(directory) / "layer.safetensors"
                layer.save(path, "fc")
                with ganq.Layer.load(self.ctx, path) as loaded:
                    np.testing.assert_array_equal(loaded.matmul(self.x[:M]), layer.matmul(self.x[:M]))
                with self.assertRaises(ganq.NotFound):
                    ganq.Layer.load(self.ctx, path, "other")
        codes[2, 9] = 8
        with self.assertRaises(ganq.InvalidArgument):
            ganq.Layer.from_codes(self.ctx, 3, codes, lut)

    def test_bad_arguments(self):
        with self.assertRaises(ganq.Error):
            ganq.Layer.quantize(self.ctx, self.w, self.h, bits=5)
        with self.assertRaises(ValueError):
            ganq.Layer.quantize(self.ctx, self.w, self.h, recipe="magic")
        with self.assertRaises(ganq.InvalidArgument):
            ganq.Layer.quantize(self.ctx, self.w[:, :-1], self.h)
        with self.assertRaises(TypeError):
            ganq.Layer.quantize(self.ctx, self.w.astype(np.int64))
        with self.assertRaises(ganq.NumericError):
            ganq.Layer.quantize(self.ctx, np.where(self.w == self.w[3, 4], np.inf, self.w))
        self.h.close()
        with self.assertRaises(ValueError):
            self.h.handle

    def test_tensors(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "layer.safetensors"
            with ganq.Layer.quantize(self.ctx, self.w, recipe="rtn", bias=np.arange(N, dtype=np.float32)) as layer:
                layer.save(path, "fc")
                _, lut = layer.codes_and_lut()
            with ganq.Tensors(path) as tensors:
                self.assertEqual(set(tensors), {"fc.qweight", "fc.lut", "fc.bias"})
                self.assertIn("fc.lut", tensors)
                self.assertEqual(tensors.info("fc.lut").shape, (N, 16))
                self.assertEqual(tensors.metadata("ganq.fc"), f"{N},{K},4")
                np.testing.assert_array_equal(tensors.read("fc.lut", slice(3, 9)), lut[3:9])
                np.testing.assert_array_equal(tensors.read("fc.bias"), np.arange(N))
                tensors.verify("fc.qweight")
                with self.assertRaises(KeyError):
                    tensors.info("nothing")
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
            with ganq.Tensors(path) as tensors, self.assertRaises(ganq.FormatError):
                for name in tensors:
                    tensors.verify(name)

    def test_progress_cancels_and_exceptions_come_back(self):
        class Stop(Exception):
            pass

        def stop(progress):
            raise Stop

        told = []
        with ganq.Context(progress=told.append) as ctx, ganq.Model.load(ctx, MODEL) as model:
            with model.quantize(recipe="rtn", bits=4) as quantized:
                self.assertEqual(quantized.info().linears_quantized, quantized.info().linears)
            finished = [p for p in told if p.stage == "quantize" and p.error >= 0]
            self.assertEqual(len(finished), model.info().linears)
            self.assertTrue(all(0 <= p.fraction <= 1 for p in told))
        with ganq.Context(progress=lambda p: p.stage == "quantize") as ctx, ganq.Model.load(ctx, MODEL) as model, \
                self.assertRaises(ganq.Canceled):
            model.quantize(recipe="rtn")
        with ganq.Context(progress=stop) as ctx, self.assertRaises(Stop):
            ganq.Model.load(ctx, MODEL)


class ModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ctx = ganq.Context()
        cls.model = ganq.Model.load(cls.ctx, MODEL)
        cls.tokenizer = ganq.Tokenizer(MODEL)

    @classmethod
    def tearDownClass(cls):
        cls.tokenizer.close()
        cls.model.close()
        cls.ctx.close()

    def test_tokenizer(self):
        text = "Once upon a time, there was a tiny \u00fcber-robot \U0001f916."
        ids = self.tokenizer.encode(text)
        self.assertEqual(self.tokenizer.decode(ids), text)
        with_bos = self.tokenizer.encode(text, bos=True)
        self.assertEqual(with_bos[0], self.tokenizer.bos)
        self.assertEqual(self.tokenizer.id(self.tokenizer.piece(int(ids[0]))), ids[0])
        with ganq.Decoder(self.tokenizer) as decoder:
            self.assertEqual("".join(decoder.push(int(i)) for i in ids) + decoder.flush(), text)
        with self.assertRaises(ganq.InvalidArgument):
            self.tokenizer.decode([self.tokenizer.vocab_size + 5])
        with self.assertRaises(ganq.NotFound):
            ganq.Tokenizer("/nonexistent")

    def test_corpus(self):
        with ganq.Corpus([[1, 2, 3], [4]]) as corpus:
            self.assertEqual((len(corpus), corpus.tokens), (2, 4))
            np.testing.assert_array_equal(corpus[0], [1, 2, 3])
            with self.assertRaises(IndexError):
                corpus[2]
        with ganq.Corpus.load(self.tokenizer, CALIBRATION, samples=3, length=64, seed=7) as windows:
            self.assertEqual([len(s) for s in windows], [64] * 3)

    def test_quantize_save_load(self):
        with ganq.Corpus.load(self.tokenizer, CALIBRATION, samples=2, length=128) as calibration, \
                self.model.quantize(calibration, bits=4, recipe="fast") as quantized, \
                tempfile.TemporaryDirectory() as directory:
            info = quantized.info()
            self.assertEqual(info.linears, info.linears_quantized)
            self.assertLess(info.bits_per_weight, 5)
            linears = quantized.linears()
            self.assertTrue(all(0 < l.error < l.norm for l in linears))
            layer = quantized.layer(0)
            self.assertEqual(layer.info().N, linears[0].N)
            self.assertIsNone(self.model.layer(0))
            out = pathlib.Path(directory) / "out"
            quantized.save(out)
            with self.assertRaises(ganq.Exists):
                quantized.save(out)
            ids = self.tokenizer.encode("The fox ran", bos=True)
            with ganq.Model.load(self.ctx, out, verify=True) as loaded, ganq.Session(self.ctx, loaded) as a, \
                    ganq.Session(self.ctx, quantized) as b, ganq.Session(self.ctx, self.model) as dense:
                np.testing.assert_array_equal(a.prefill_logits(ids), b.prefill_logits(ids))
                dense.prefill(ids)
                self.assertLess(np.abs(dense.logits - a.logits).max(), np.ptp(dense.logits))
            plain = pathlib.Path(directory) / "plain"
            quantized.export_dense(plain, dtype="f32")
            with ganq.Model.load(self.ctx, plain) as exported:
                self.assertEqual(exported.info().linears_quantized, 0)

    def test_random_weights(self):
        with ganq.Model.random(self.ctx, MODEL, bits=3, seed=5) as model:
            self.assertEqual(model.info().linears_quantized, self.model.info().linears)
            self.assertEqual({linear.bits for linear in model.linears()}, {3})

    def test_plan(self):
        plan = self.model.plan(recipe="rtn", bits=3, skip="down_proj")
        info = self.model.info()
        self.assertEqual(plan.linears + plan.skipped, info.linears)
        self.assertEqual(plan.skipped, info.layers)
        self.assertEqual([b == 0 for b in plan.linear_bytes], ["down_proj" in l.name for l in self.model.linears()])
        self.assertLess(plan.bytes_after, plan.bytes_before)
        with self.assertRaises(ganq.InvalidArgument):
            self.model.plan(recipe="rtn", skip="(")

    def test_perplexity_and_generation(self):
        with ganq.Corpus.load(self.tokenizer, EVALUATION, mode="documents", samples=4, length=256) as documents:
            result = ganq.perplexity(self.ctx, self.model, documents, protocol="document", context=256)
            self.assertEqual(result.tokens, documents.tokens - len(documents))
            self.assertGreater(result.perplexity, 1)
            # the same from logits
            nll = []
            with ganq.Session(self.ctx, self.model) as session:
                for ids in documents:
                    session.truncate()
                    logits = session.prefill_logits(ids).astype(np.float64)[:-1]
                    logits -= logits.max(1, keepdims=True)
                    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
                    nll.extend(-log_p[np.arange(len(ids) - 1), ids[1:]])
            self.assertAlmostEqual(result.perplexity, np.exp(np.mean(nll)), delta=1e-3 * result.perplexity)
        ids = self.tokenizer.encode("Once upon a time", bos=True)
        with ganq.Session(self.ctx, self.model, max_context=64) as session:
            session.prefill(ids)
            seen = []
            first = session.generate(10, stop=[], on_token=seen.append)
            self.assertEqual(first, seen)
            self.assertEqual(len(first), 10)
            self.assertEqual(len(session), len(ids) + 10)
            session.truncate(len(ids) - 1)
            session.step(int(ids[-1]))
            self.assertEqual(session.sample(), first[0])
            with self.assertRaises(ganq.InvalidArgument):
                session.prefill([10**6])


if __name__ == "__main__":
    unittest.main()
