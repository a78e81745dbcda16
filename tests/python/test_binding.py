"""The binding from end to end: one layer, a Hessian, text, a model; and that errors carry the library's message."""
import copy
import gc
import os
import pathlib
import pickle
import shutil
import tempfile
import unittest
import unittest.mock
import weakref

import numpy as np

import ganq
from ganq import _library

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

    def test_byte_order(self):
        swapped = self.w.astype(self.w.dtype.newbyteorder())
        with ganq.Layer.quantize(self.ctx, self.w, recipe="rtn") as layer, \
                ganq.Layer.quantize(self.ctx, swapped, recipe="rtn") as same:
            np.testing.assert_array_equal(same.dequantize(), layer.dequantize())
            y = layer.matmul(self.x[:M])
            for x in (self.x[:M].astype(">f4"), self.x[:M].astype("<f4")):
                np.testing.assert_array_equal(layer.matmul(x), y)
            self.assertTrue(layer.matmul(self.x[:M].astype(">f4")).dtype.isnative)
            for dtype in (self.x.dtype.newbyteorder(), np.dtype(np.uint16).newbyteorder()):
                with self.assertRaisesRegex(ValueError, "out .* native byte order"):
                    layer.matmul(self.x[:M], out=np.zeros((M, N), dtype))

    def test_where_products_go(self):
        with ganq.Layer.quantize(self.ctx, self.w, recipe="rtn") as layer:
            y = layer.matmul(self.x[:M])
            odd = np.frombuffer(bytearray(1 + 4 * M * K), np.float32, M * K, offset=1).reshape(M, K)
            odd[...] = self.x[:M]
            np.testing.assert_array_equal(layer.matmul(odd), y)
            out = np.frombuffer(bytearray(1 + 4 * M * N), np.float32, M * N, offset=1).reshape(M, N)
            with self.assertRaisesRegex(ValueError, "aligned"):
                layer.matmul(self.x[:M], out=out)
            with self.assertRaisesRegex(TypeError, "out is a list"):
                layer.matmul(self.x[:M], out=list(np.zeros((M, N), np.float32)))
            with self.assertRaisesRegex(ganq.InvalidArgument, "x has no rows"):
                layer.matmul(self.x[:0])

    def test_whole_numbers_of_a_layer(self):
        with ganq.Layer.quantize(self.ctx, self.w, recipe="rtn") as layer:
            codes, lut = layer.codes_and_lut()
        rowptr, cols, vals = np.minimum(np.arange(N + 1), 1), np.array([5]), np.array([0.5])
        for codes_of in (np.uint8, np.int64, object):
            ganq.Layer.from_codes(self.ctx, 4, codes.astype(codes_of), lut, outliers=(rowptr, cols, vals)).close()
        for error, bits, given, outliers in (
                (ganq.InvalidArgument, 4, codes.astype(np.int64) + 256, None),
                (ganq.InvalidArgument, 4, codes.astype(np.int64) - 256, None),
                (ganq.InvalidArgument, 4, codes.astype(object) + 2**70, None),
                (TypeError, 4, codes + 0.9, None),
                (TypeError, 4, codes > 3, None),
                (ganq.InvalidArgument, 2**32 + 4, codes, None),
                (TypeError, 4.0, codes, None),
                (TypeError, 4, codes, (rowptr, [5.9], vals)),
                (ganq.InvalidArgument, 4, codes, (rowptr, [2**32 + 5], vals)),
                (TypeError, 4, codes, (rowptr + 0.5, cols, vals)),
                (TypeError, 4, codes, (rowptr, cols, [0.5 + 1j]))):
            with self.subTest(bits=bits, outliers=outliers), self.assertRaises(error):
                ganq.Layer.from_codes(self.ctx, bits, given, lut, outliers=outliers)
        wide, cut = 2**32 + 4, 2**64 + 4
        for value, call in (
                (wide, lambda n: ganq.Context(threads=n)), (wide, lambda n: ganq.Context(device=f"cpu:{n}")),
                (cut, lambda n: ganq.Context(memory_budget_bytes=n)), (cut, lambda n: ganq.Hessian(self.ctx, n)),
                (cut, lambda n: ganq.Hessian.from_matrix(self.ctx, np.eye(4), tokens=n)),
                (wide, lambda n: ganq.Layer.quantize(self.ctx, self.w, bits=n)),
                (wide, lambda n: ganq.Layer.quantize(self.ctx, self.w, iterations=n))):
            with self.subTest(value=value, call=call), self.assertRaisesRegex(ganq.InvalidArgument, f"is {value}, expected"):
                call(value)

    def test_outliers_stay_inside_their_arrays(self):
        lut = np.sort(random(N, 16, seed=2), axis=1)
        codes = np.zeros((N, K), np.uint8)
        full = np.full(N, 1)
        for message, given, outliers in (
                ("rowptr has shape", codes[0], (np.r_[0, K, np.ones(K - 1, int)], [0], [1.0])),
                ("rowptr must", codes, (np.r_[0, K, full[1:]], [0], [1.0])),
                ("rowptr must", codes, (np.r_[1, full], [0], [1.0])),
                ("rowptr ends with 1", codes, (np.r_[0, full], [], [])),
                ("rowptr ends with 1", codes, (np.r_[0, full], [0], [[1.0]])),
                ("2 arrays", codes, (np.r_[0, full], [0]))):
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                ganq.Layer.from_codes(self.ctx, 4, given, lut[: len(np.atleast_2d(given))], outliers=outliers)
        with ganq.Layer.from_codes(self.ctx, 4, codes[0], lut[0], outliers=([0, 1], [3], [0.5])) as row:
            expected = np.full((1, K), lut[0, 0])
            expected[0, 3] += 0.5
            np.testing.assert_array_equal(row.dequantize(), expected)

    def test_handles_have_one_owner(self):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with self.assertRaisesRegex(TypeError, "Hessian cannot be copied or pickled"):
                duplicate(self.h)
        self.assertEqual(self.h.tokens, 300)

    def test_other_handles_are_refused(self):
        with ganq.Corpus() as corpus:
            for other in (corpus, 5, "path"):
                with self.assertRaisesRegex(TypeError, "hessian is a .*; a Hessian is expected"):
                    ganq.Layer.quantize(self.ctx, self.w, other)
                with self.assertRaisesRegex(TypeError, "a Hessian is expected"):
                    self.h.merge(other)

    def test_strings_with_nul(self):
        with tempfile.TemporaryDirectory() as directory, ganq.Layer.quantize(self.ctx, self.w, recipe="rtn") as layer:
            path = pathlib.Path(directory) / "layer.safetensors"
            layer.save(path, "fc")
            with ganq.Tensors(path) as tensors, ganq.Tokenizer(MODEL) as tokenizer, \
                    ganq.Model.load(self.ctx, MODEL) as model:
                for call in (lambda: ganq.Tensors(f"{path}\0x"), lambda: ganq.Layer.load(self.ctx, path, "fc\0x"),
                             lambda: layer.save(path, "fc\0x"), lambda: layer.save(f"{path}\0x", "fc"),
                             lambda: "fc.lut\0x" in tensors, lambda: tensors.read("fc.lut\0x"),
                             lambda: tensors.metadata("ganq.fc\0x"), lambda: tokenizer.id("a\0x"),
                             lambda: ganq.Tokenizer(os.fsencode(MODEL) + b"\0x"),
                             lambda: model.plan(recipe="rtn", skip="down_proj\0x"),
                             lambda: model.save(path.parent / "out", calibration="text\0x")):
                    with self.assertRaisesRegex(ValueError, "embedded NUL"):
                        call()
            self.assertEqual([p.name for p in path.parent.iterdir()], [path.name])

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


    def test_nothing_in_use_is_closed(self):
        for close in ("ctx", "model", "corpus"):
            handles = {}
            progress = unittest.mock.Mock(side_effect=lambda p: handles[close].close() if close in handles else None)
            with ganq.Context(progress=progress) as ctx, ganq.Model.load(ctx, MODEL) as model, \
                    ganq.Corpus([range(1, 40)] * 3) as corpus:
                handles.update(ctx=ctx, model=model, corpus=corpus)
                with self.assertRaisesRegex(ValueError, f"{type(handles[close]).__name__} is in use"):
                    ganq.perplexity(ctx, model, corpus, protocol="document")
                self.assertTrue(handles.pop(close).handle)
        with ganq.Model.load(self.ctx, MODEL) as model, ganq.Session(self.ctx, model) as session:
            session.prefill([1])
            with self.assertRaisesRegex(ValueError, "Session is in use"):
                session.generate(5, stop=[], on_token=lambda token: session.close())
            self.assertEqual(len(session.generate(2, stop=[])), 2)

    def test_exceptions_of_the_log(self):
        class Stop(BaseException):
            pass

        def stop(level, message):
            raise Stop

        with tempfile.TemporaryDirectory() as directory, ganq.Context(log=stop) as ctx:
            model = pathlib.Path(directory) / "model"
            shutil.copytree(MODEL, model)
            (model / "generation_config.json").write_text('{"bos_token_id": 1000000}')  # which is logged
            with unittest.mock.patch.object(_library.lib, "ganq_model_free", wraps=_library.lib.ganq_model_free) as free:
                with self.assertRaises(Stop):
                    ganq.Model.load(ctx, model)
                free.assert_called_once()
            (model / "model.safetensors").write_bytes(b"")
            with self.assertRaises(Stop) as caught:
                ganq.Model.load(ctx, model)
            self.assertIsInstance(caught.exception.__context__, ganq.Error)


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
        with self.assertRaises(TypeError):
            self.tokenizer.encode(5)

    def test_corpus(self):
        with ganq.Corpus([[1, 2, 3], [4]]) as corpus:
            self.assertEqual((len(corpus), corpus.tokens), (2, 4))
            np.testing.assert_array_equal(corpus[0], [1, 2, 3])
            with self.assertRaises(IndexError):
                corpus[2]
            with self.assertRaises(IndexError):
                corpus[2**64]
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

    def test_a_layer_closes_with_its_model(self):
        with self.model.quantize(recipe="rtn") as quantized:
            layer = quantized.layer(0)
            expected = layer.dequantize()
            with quantized.layer(0) as other:
                self.assertEqual(other.info(), layer.info())
            np.testing.assert_array_equal(layer.dequantize(), expected)
        for call in (layer.info, layer.dequantize, lambda: layer.matmul(np.ones(layer.info().K, np.float32))):
            with self.assertRaisesRegex(ValueError, "Layer is closed: its Model is"):
                call()
        layer.close()

    def test_a_session_keeps_the_callbacks(self):
        ctx = ganq.Context(log=lambda level, message: None)
        alive = weakref.ref(ctx)
        with ganq.Session(ctx, self.model) as session:
            del ctx
            gc.collect()
            self.assertIsNotNone(alive())
            alive().close()
            session.prefill([1, 2])
            self.assertEqual(len(session), 2)

    def test_an_empty_calibration_is_one(self):
        with ganq.Corpus() as empty:
            for call in (self.model.quantize, self.model.plan):
                with self.assertRaisesRegex(ganq.InvalidArgument, "calibration has no tokens"):
                    call(empty, recipe="rtn")

    def test_whole_numbers(self):
        wide, cut = 2**32 + 5, 2**64 + 5
        with ganq.Session(self.ctx, self.model) as session, ganq.Decoder(self.tokenizer) as decoder, \
                ganq.Corpus([[1, 2, 3]]) as corpus:
            session.prefill(np.array([1, 2], np.uint64))
            session.prefill([np.int16(3)])
            for ids in ([1.0], [1.9], np.ones(2), ["1"], [None, 1], np.ones(2, bool), [1, 1.5]):
                for call in (session.prefill, session.prefill_logits, self.tokenizer.decode, corpus.add,
                             lambda ids: session.generate(1, stop=ids)):
                    with self.subTest(ids=ids), self.assertRaises(TypeError):
                        call(ids)
            for ids in ([wide], [-wide], np.array([2**63], np.uint64), [2**70]):
                for call in (session.prefill, session.prefill_logits, self.tokenizer.decode, corpus.add,
                             lambda ids: session.generate(1, stop=ids)):
                    with self.subTest(ids=ids), self.assertRaises(ganq.InvalidArgument):
                        call(ids)
            load = dict(tokenizer=self.tokenizer, path=CALIBRATION)
            for value, call in (
                    (wide, session.step), (wide, self.tokenizer.piece), (wide, decoder.push), (cut, session.truncate),
                    (wide, lambda n: session.sample(top_k=n)), (cut, lambda n: session.sample(seed=n)),
                    (-1, lambda n: session.sample(seed=n)), (wide, lambda n: session.generate(1, top_k=n)),
                    (cut, session.generate), (cut, lambda n: session.generate(1, seed=n)),
                    (cut, lambda n: ganq.Session(self.ctx, self.model, max_context=n)),
                    (cut, lambda n: ganq.perplexity(self.ctx, self.model, corpus, context=n)),
                    (cut, lambda n: ganq.perplexity(self.ctx, self.model, corpus, context=2, max_tokens=n)),
                    (cut, self.model.linear), (cut, self.model.layer),
                    (wide, lambda n: ganq.Model.random(self.ctx, MODEL, bits=n)),
                    (cut, lambda n: ganq.Model.random(self.ctx, MODEL, seed=n)),
                    (wide, lambda n: self.model.plan(recipe="rtn", iterations=n)),
                    (cut, lambda n: self.model.save("/nonexistent/out", shard_bytes=n)),
                    (cut, lambda n: ganq.Corpus.load(samples=n, **load)), (cut, lambda n: ganq.Corpus.load(length=n, **load)),
                    (cut, lambda n: ganq.Corpus.load(skip=n, **load)), (cut, lambda n: ganq.Corpus.load(seed=n, **load))):
                with self.subTest(value=value, call=call):
                    with self.assertRaisesRegex(ganq.InvalidArgument, f"is {value}, expected"):
                        call(value)
                    with self.assertRaises(TypeError):
                        call(1.0)
            self.assertEqual((len(session), len(corpus)), (3, 1))
            self.assertEqual(corpus.tokens, 3)
            session.prefill(np.array([4], ">i4"))

    def test_other_handles_are_refused(self):
        for call in (lambda: ganq.Session(self.ctx, self.tokenizer), lambda: ganq.Session(self.ctx, "model"),
                     lambda: ganq.perplexity(self.ctx, self.model, self.tokenizer), lambda: ganq.Decoder(self.model),
                     lambda: self.model.quantize(self.tokenizer), lambda: self.model.plan(5, recipe="rtn"),
                     lambda: ganq.Corpus.load(self.model, CALIBRATION)):
            with self.assertRaisesRegex(TypeError, "is expected"):
                call()

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
        with ganq.Corpus([[1, 2, 3]]) as corpus, self.assertRaises(ganq.InvalidArgument):
            self.model.plan(corpus, compensation=float("nan"))

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
