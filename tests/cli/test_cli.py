"""test_cli.py GANQ SOURCE_DIR - every command, its exit codes, its JSON and what it says about bad input."""
import csv
import io
import json
import os
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import unittest

from fixtures import Command, edit_safetensors, floats, write_documents, write_model, write_opt_model, write_safetensors

GANQ = Command(sys.argv[1])
SOURCE = sys.argv[2]
OK, FAILURE, USAGE, NOT_FOUND, EXISTS, INTERRUPTED = 0, 1, 2, 3, 4, 130


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = tempfile.mkdtemp(prefix="ganq-cli-")
        cls.model = os.path.join(cls.root, "model")
        cls.text = os.path.join(cls.root, "text.jsonl")
        write_model(cls.model)
        write_documents(cls.text, 12)
        cls.counter = 0

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.root)

    def path(self, name):
        """A new path for an output."""
        Base.counter = getattr(Base, "counter", 0) + 1
        return os.path.join(self.root, "%s-%d" % (name, Base.counter))

    def assert_says(self, done, *words):
        for word in words:
            self.assertIn(word, done.stderr)

    def assert_no_leftovers(self):
        self.assertEqual([n for n in os.listdir(self.root) if "partial" in n or "probe" in n or n.endswith(".part")], [])


class Overview(Base):
    def test_version_and_help(self):
        self.assertIn("libganq", GANQ.run("version").stdout)
        self.assertEqual(GANQ.run("--version").stdout, GANQ.run("version").stdout)
        overview = GANQ.run("help").stdout
        self.assertEqual(GANQ.run("--help").stdout, overview)
        for command in ("quantize", "quantize-layer", "perplexity", "generate", "inspect", "export", "version",
                        "bench gemm", "bench decode", "bench quantize", "bench hessian"):
            self.assertIn(command.split()[0], overview)
            text = GANQ.run(*command.split(), "--help").stdout
            self.assertEqual(GANQ.run("help", *command.split()).stdout, text)
            for word in ("--device", "--threads", "--numerics", "Exit codes", "usage: ganq " + command):
                self.assertIn(word, text, command)
        self.assertIn("[4]", GANQ.run("quantize", "--help").stdout)  # defaults are shown
        self.assertIn("decode", GANQ.run("bench", "--help").stdout)

    def test_usage_errors(self):
        for words, said in (((), "usage"), (("frobnicate",), "frobnicate"), (("quantize",), "MODEL OUT"),
                            (("quantize", "a"), "OUT is missing"), (("quantize", "a", "b"), "--calib"),
                            (("quantize", "a", "b", "c"), "unexpected"),
                            (("quantize", "a", "b", "--bits", "5"), "--bits"),
                            (("quantize", "a", "b", "--bits"), "needs a value"),
                            (("quantize", "a", "b", "--recipe", "magic"), "magic"),
                            (("quantize", "a", "b", "--nope"), "--nope"),
                            (("quantize", "a", "b", "--outliers", "x"), "--outliers"),
                            (("quantize", "a", "b", "--force=yes"), "takes no value"),
                            (("perplexity", "m"), "--text"), (("quantize-layer", "f"), "--weight"),
                            (("quantize-layer", "f", "--weight", "a", "--rows", "9:3"), "--rows"),
                            (("quantize-layer", "f", "--weight", "a", "--weight", "b", "--hessian", "h"), "1 --hessian"),
                            (("quantize", "", "b", "--recipe", "rtn"), "argument 1"), (("inspect", ""), "empty"),
                            (("export", "a", ""), "argument 2"),
                            (("quantize", "a", "b", "--recipe", "rtn", "--damping", "0"), "recipe rtn does not use"),
                            (("quantize-layer", "f", "--weight", "a", "--recipe", "paper", "--damping", "0.1"), "paper"),
                            (("bench",), "usage"), (("bench", "gemm", "--shape", "12"), "--shape"),
                            (("generate", "m", "--device", "tpu"), "tpu"),
                            (("generate", "m", "--memory", "12q"), "--memory")):
            self.assert_says(GANQ.run(*words, expect=USAGE), said)

    def test_missing_device(self):
        done = GANQ.run("inspect", self.model, "--device", "cuda:999", expect=NOT_FOUND)
        self.assertTrue(done.stderr)


class Quantize(Base):
    def quantize(self, *options, expect=OK, out=None):
        out = self.path("out") if out is None else out
        done = GANQ.run("quantize", self.model, out, "--calib", self.text, "--sampling", "documents", "--nsamples", 6,
                        "--recipe", "fast", *options, expect=expect)
        return out, done

    def test_report_and_model(self):
        report_path = self.path("report")
        out, done = self.quantize("--bits", 3, "--outliers", 0.01, "--report", report_path, "--skip", 2)
        with open(report_path, encoding="utf-8") as file:
            report = json.load(file)
        self.assertEqual(len(report["layers"]), 14)
        for layer in report["layers"]:
            self.assertEqual(layer["bits"], 3)
            self.assertGreater(layer["E"], 0)
            self.assertLess(layer["E"], 0.2)
            self.assertIn("seconds", layer)
        totals = report["totals"]
        self.assertAlmostEqual(totals["E"], sum(l["error"] for l in report["layers"]) /
                               sum(l["norm"] for l in report["layers"]), places=12)
        self.assertEqual(report["calibration"]["sequences"], 6)
        self.assertEqual(report["recipe"], "fast")
        self.assertEqual((report["bits"], report["target_bits"], report["compensate"], report["lut_dtype"], report["keep_dense"]),
                         (3, None, None, "f16", None))
        # one line per layer where standard error is no terminal
        lines = [line for line in done.stderr.splitlines() if " E " in line]
        self.assertEqual(len(lines), 14)
        self.assertIn("model.layers.0.self_attn.q_proj", lines[0])
        with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
            settings = json.load(file)["quantization_config"]
        self.assertEqual(settings["bits"], 3)
        self.assertEqual(settings["tensors"]["model.layers.0.mlp.down_proj"], {"N": 32, "K": 48, "bits": 3})
        self.assertIn("documents from number 2", settings["calibration"]["text"])
        self.assertTrue(os.path.exists(os.path.join(out, "tokenizer.json")))
        facts = GANQ.json("inspect", out, "--json", "--layers", "--verify")
        self.assertEqual(facts["linears_quantized"], 14)
        self.assertEqual(len(facts["linear_layers"]), 14)
        self.assertEqual(facts["verified"]["without_crc"], 0)
        self.assertGreater(facts["verified"]["checked"], 28)
        self.assertIn("14 of them quantized", GANQ.run("inspect", out).stdout)
        self.assert_no_leftovers()

    def test_report_of_options(self):
        report_path = self.path("report-options")
        self.quantize("--target-bits", 2.5, "--compensate", 0.25, "--iterations", 2, "--damping", 0.02, "--keep-dense", "down_proj",
                      "--lut-dtype", "f32", "--report", report_path)
        with open(report_path, encoding="utf-8") as file:
            report = json.load(file)
        for name, value in (("bits", None), ("target_bits", 2.5), ("compensate", 0.25), ("iterations", 2), ("damping", 0.02),
                            ("keep_dense", "down_proj"), ("lut_dtype", "f32")):
            self.assertEqual(report[name], value)

    def test_opt(self):
        dense = self.path("opt")
        write_opt_model(dense)
        text = ["--text", self.text, "--protocol", "document", "--numerics", "exact", "--json"]
        before = GANQ.json("perplexity", dense, *text)["perplexity"]
        for options in ((), ("--target-bits", 3), ("--outliers", 0.01, "--propagate", "off")):
            out, report_path = self.path("out-opt"), self.path("report-opt")
            GANQ.run("quantize", dense, out, "--calib", self.text, "--sampling", "documents", "--nsamples", 6, "--recipe", "fast",
                     "--report", report_path, "--force", *options)
            with open(report_path, encoding="utf-8") as file:
                names = [layer["name"] for layer in json.load(file)["layers"]]
            self.assertEqual(len(names), 12)
            self.assertEqual(names[4:6], ["model.decoder.layers.0.fc1", "model.decoder.layers.0.fc2"])
            after = GANQ.json("perplexity", out, *text)["perplexity"]
            self.assertLess(abs(after / before - 1), 0.05)
        # The export computes what the quantized model does, and holds all tensors of the source.
        exported = self.path("dense-opt")
        GANQ.run("export", out, exported, "--dtype", "f32")
        self.assertAlmostEqual(GANQ.json("perplexity", exported, *text)["perplexity"] / after, 1, 5)
        self.assertEqual(GANQ.json("inspect", exported, "--json")["parameters"], GANQ.json("inspect", dense, "--json")["parameters"])
        self.assertIn("cat", GANQ.run("generate", out, "--prompt", "the cat", "-n", 5, "--temp", 0).stdout)

    def test_same_bits_for_any_threads(self):
        files = []
        for threads in (1, 2):
            out, _ = self.quantize("--threads", threads, "--bits", 2)
            with open(os.path.join(out, "model.safetensors"), "rb") as file:
                files.append(file.read())
        self.assertEqual(files[0], files[1])

    def test_existing_output(self):
        out = self.path("full")
        os.mkdir(out)
        with open(os.path.join(out, "stray"), "w", encoding="utf-8") as file:
            file.write("x")
        self.assert_says(self.quantize("--bits", 2, out=out, expect=EXISTS)[1], "--force")
        self.assertEqual(os.listdir(out), ["stray"])
        # What is no model stays, and is not found out after the work.
        self.assert_says(self.quantize("--bits", 2, "--force", out=out, expect=EXISTS)[1], "no config.json")
        self.assertEqual(os.listdir(out), ["stray"])
        with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
            file.write("{}")
        here = os.getcwd()
        os.chdir(out)
        try:
            self.assert_says(self.quantize("--bits", 2, "--force", out=".", expect=USAGE)[1], "current directory")
        finally:
            os.chdir(here)
        self.quantize("--bits", 2, "--force", out=out)
        self.assertNotIn("stray", os.listdir(out))
        self.assertIn("config.json", os.listdir(out))
        self.assert_no_leftovers()

    def test_outputs_are_tried_first(self):
        """What can be known before the work is said before it: no layer is solved, nothing is left."""
        stray = self.path("stray-file")
        with open(stray, "w", encoding="utf-8") as file:
            file.write("x")
        dangling = self.path("dangling")
        os.symlink("nowhere", dangling)
        cases = (("", USAGE, "empty"), (stray, EXISTS, "not a readable directory"),
                 (os.path.join(stray, "x"), FAILURE, "Not a directory"),
                 (dangling, EXISTS, "not a readable directory"),
                 (self.path("n" * 300), FAILURE, "too long"))
        for out, code, word in cases:
            _, done = self.quantize(out=out, expect=code)
            self.assert_says(done, word)
            self.assertNotIn(" E ", done.stderr)
        _, done = self.quantize("--force", out=os.path.dirname(self.model), expect=USAGE)
        self.assert_says(done, "is inside it")
        out = self.path("reported")
        for report, code, word in ((out, USAGE, "same"), (self.model, EXISTS, "is a directory"),
                                   (os.path.join(self.root, "no", "r.json"), NOT_FOUND, "No such file")):
            _, done = self.quantize("--report", report, out=out, expect=code)
            self.assert_says(done, word)
            self.assertNotIn(" E ", done.stderr)
        self.assertFalse(os.path.exists(out))
        there = self.path("there")
        os.mkdir(there)
        os.symlink(self.root, os.path.join(self.root, "link"))
        for report, word in (("", "empty"), (os.path.join(self.root, ".", os.path.basename(out)), "same"),
                             (os.path.join(self.root, "link", os.path.basename(out)), "same")):
            _, done = self.quantize("--report", report, out=out, expect=USAGE)
            self.assert_says(done, word)
            self.assertNotIn(" E ", done.stderr)
        _, done = self.quantize("--report", os.path.join(there, "..", os.path.basename(there), "r.json"), out=there,
                                expect=USAGE)
        self.assert_says(done, "is inside OUT")
        self.assertFalse(os.path.exists(out))
        self.assertEqual(os.listdir(there), [])
        self.assert_no_leftovers()

    def test_odd_surroundings(self):
        """Names that are not UTF-8, a report that is a pipe, closed streams, a limit on file sizes."""
        text = os.fsdecode(os.fsencode(self.path("text-")) + b"\xff.jsonl")
        shutil.copy(self.text, text)
        pipe, out = self.path("pipe"), self.path("odd")
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        words = [GANQ.path, "quantize", self.model, out, "--calib", text, "--sampling", "documents", "--nsamples", "4",
                 "--seqlen", "32", "--recipe", "fast", "--progress", "json"]
        subprocess.run(words + ["--report", pipe], check=True, capture_output=True)
        report = json.loads(os.read(reader, 1 << 20))
        os.close(reader)
        self.assertIn("not UTF-8", report["calibration"]["text"])
        self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))
        # standard error is closed: its number must not go to a file of the output, nor the progress into that
        subprocess.run(words + ["--force"], check=True, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.close(2))
        GANQ.run("inspect", out, "--verify")
        shutil.rmtree(out)
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        done = subprocess.run(words, capture_output=True, preexec_fn=limit)
        self.assertEqual(done.returncode, FAILURE)
        self.assertIn(b"File too large", done.stderr)
        self.assertFalse(os.path.exists(out))
        self.assert_no_leftovers()

    def test_windows_and_no_calibration(self):
        out = self.path("windows")
        GANQ.run("quantize", self.model, out, "--calib", self.text, "--nsamples", 4, "--seqlen", 32, "--recipe", "fast",
                 "--propagate", "off", "--progress", "none", "--keep-dense", "layers.1")
        self.assertEqual(GANQ.json("inspect", out, "--json")["linears_quantized"], 7)
        done = GANQ.run("quantize", self.model, self.path("rtn"), "--recipe", "rtn", "--progress", "json")
        events = [json.loads(line) for line in done.stderr.splitlines()]
        self.assertEqual(len([e for e in events if "E" in e]), 14)
        self.assertTrue(all(0 <= e["fraction"] <= 1 for e in events))

    def test_messages_as_json(self):
        """With --progress json every line of standard error is an object, also where a name is not UTF-8."""
        def lines(*words, expect):
            return [json.loads(line) for line in
                    GANQ.run(*words, "--progress", "json", expect=expect).stderr.splitlines()]
        done = lines("quantize", self.model, self.path("logged"), "--recipe", "rtn", "--log", "debug", expect=OK)
        self.assertTrue(all("fraction" in e or set(e) == {"level", "message"} for e in done))
        name = os.fsdecode(b'no "such" \n\xff')
        done = lines("inspect", os.path.join(self.root, name), expect=NOT_FOUND)
        self.assertEqual([e["level"] for e in done], ["error"])
        self.assertIn('no "such" \n?', done[0]["message"])
        done = lines("quantize", self.model, "out", expect=USAGE)
        self.assertIn("--calib", done[0]["message"])
        done = lines("generate", self.model, "-n", 2, "--stats", expect=OK)
        self.assertEqual([e["level"] for e in done if "message" in e], ["info"])

    def test_verify_reads_the_codes(self):
        """Bits beyond the last column, in a file whose sums are right."""
        out = self.path("padded")
        GANQ.run("quantize", self.model, out, "--recipe", "rtn", "--bits", 3)
        facts = GANQ.json("inspect", out, "--verify", "--json")["verified"]
        self.assertEqual(facts["layers"], 14)
        codes = "model.layers.1.mlp.down_proj.qweight"  # 48 columns: two groups, the second one half empty
        edit_safetensors(os.path.join(out, "model.safetensors"), codes, lambda data: data[:23] + b"\x80" + data[24:])
        self.assert_says(GANQ.run("inspect", out, "--verify", expect=FAILURE), codes, "row 0", "column 63")
        os.remove(os.path.join(out, "config.json"))
        self.assert_says(GANQ.run("inspect", out, "--verify", expect=NOT_FOUND), "no config.json")

    def test_dry_run(self):
        before = sorted(os.listdir(self.root))
        done = GANQ.run("quantize", self.model, self.path("never"), "--calib", self.text, "--sampling", "documents",
                        "--nsamples", 3, "--bits", 2, "--keep-dense", "o_proj$", "--dry-run")
        self.assertEqual(sorted(os.listdir(self.root)), before)
        for word in ("12 to quantize", "kept", "hidden states", "model.layers.1.mlp.down_proj", "nothing was written"):
            self.assertIn(word, done.stdout)

    def test_bad_input(self):
        missing = os.path.join(self.root, "no-such")
        out = self.path("bad")
        tiny = self.path("tiny.jsonl")
        with open(tiny, "w", encoding="utf-8") as file:
            file.write('{"text": "hi"}\n')
        self.assert_says(GANQ.run("quantize", missing, out, "--calib", self.text, expect=NOT_FOUND), "no-such")
        self.assert_says(GANQ.run("quantize", self.model, out, "--calib", missing, expect=NOT_FOUND), "no-such")
        self.assert_says(GANQ.run("quantize", self.model, out, "--calib", tiny, "--seqlen", 64, expect=None), "tokens")
        self.assert_says(self.quantize("--keep-dense", "proj(", expect=USAGE)[1], "position")
        self.assert_says(self.quantize("--seqlen", 1000, expect=USAGE)[1], "128")
        self.assert_says(self.quantize("--memory", 1000, expect=FAILURE)[1], "budget")
        self.quantize(out=os.path.join(self.root, "no", "parent"), expect=NOT_FOUND)
        self.assertFalse(os.path.exists(out))
        damaged = self.path("damaged")
        shutil.copytree(self.model, damaged)
        with open(os.path.join(damaged, "model.safetensors"), "r+b") as file:
            file.truncate(5000)
        self.assert_says(GANQ.run("quantize", damaged, out, "--calib", self.text, expect=FAILURE), "model.safetensors")
        with open(os.path.join(damaged, "config.json"), "w", encoding="utf-8") as file:
            file.write('{"architectures": ["T5Model"]}')
        self.assert_says(GANQ.run("inspect", damaged, expect=FAILURE), "T5Model")
        self.assert_no_leftovers()

    def test_interrupt(self):
        big = self.path("big")
        write_model(big, hidden=192, inter=512, layers=3)
        out = self.path("interrupted")
        process = subprocess.Popen([GANQ.path, "quantize", big, out, "--calib", self.text, "--sampling", "documents",
                                    "--recipe", "best", "--progress", "json"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if '"quantize"' in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)[1]
        self.assertEqual(process.returncode, INTERRUPTED, rest)
        self.assertIn("interrupted", rest)
        self.assertFalse(os.path.exists(out))
        self.assert_no_leftovers()


class QuantizeLayer(Base):
    def setUp(self):
        self.file = self.path("layers.safetensors")
        identity = b"".join(b"\0\0\x80\x3f" if i // 48 == i % 48 else b"\0\0\0\0" for i in range(48 * 48))
        write_safetensors(self.file, {"a.weight": floats((40, 48)), "b.weight": floats((20, 48)),
                                      "H": ("F32", [48, 48], identity), "odd": ("I8", [2, 2], b"abcd")})

    def test_json(self):
        one = GANQ.json("quantize-layer", self.file, "--weight", "a.weight", "--hessian", "H", "--bits", 3, "--json")
        for key in ("error", "norm", "E", "seconds"):
            self.assertIsInstance(one[key], float)
        self.assertAlmostEqual(one["E"], one["error"] / one["norm"], places=12)
        both = GANQ.json("quantize-layer", self.file, "--weight", "a.weight", "--hessian", "H", "--weight", "b.weight",
                         "--hessian", "H", "--bits", 3, "--json")
        self.assertEqual([layer["name"] for layer in both["layers"]], ["a.weight", "b.weight"])
        self.assertAlmostEqual(both["error"], sum(layer["error"] for layer in both["layers"]), places=9)
        self.assertAlmostEqual(both["layers"][0]["E"], one["E"], places=12)
        part = GANQ.json("quantize-layer", self.file, "--weight", "a.weight", "--hessian", "H", "--bits", 3, "--rows",
                         "8:24", "--json")
        self.assertEqual(part["layers"][0]["N"], 16)
        self.assertLess(part["norm"], one["norm"])
        plain = GANQ.run("quantize-layer", self.file, "--weight", "a.weight", "--recipe", "rtn")
        self.assertIn("a.weight", plain.stdout)

    def test_saved_layer(self):
        out = self.path("a.safetensors")
        GANQ.run("quantize-layer", self.file, "--weight", "a.weight", "--hessian", "H", "--bits", 4, "--out", out)
        listing = GANQ.json("inspect", out, "--json", "--verify")
        self.assertEqual({t["name"] for t in listing["tensors"]}, {"a.qweight", "a.lut"})
        with open(out, "r+b") as file:
            file.seek(-2, 2)
            byte = file.read(1)
            file.seek(-2, 2)
            file.write(bytes([byte[0] ^ 1]))
        self.assert_says(GANQ.run("inspect", out, "--verify", expect=FAILURE), "a.lut")
        GANQ.run("quantize-layer", self.file, "--weight", "a.weight", "--hessian", "H", "--out", out)
        self.assertEqual(GANQ.json("inspect", out, "--json", "--verify")["verified"]["layers"], 1)
        edit_safetensors(out, "a.lut", lambda data: data[:-2] + b"\0\x7e")  # NaN, with its sum made right
        self.assert_says(GANQ.run("inspect", out, "--verify", expect=FAILURE), "a.lut")
        GANQ.run("inspect", out)

    def test_long_name(self):
        name = "n" * 1500
        write_safetensors(self.file, {name + ".weight": floats((4, 32))})
        out = self.path("long.safetensors")
        GANQ.run("quantize-layer", self.file, "--weight", name + ".weight", "--out", out)
        self.assertEqual({t["name"] for t in GANQ.json("inspect", out, "--json")["tensors"]},
                         {name + ".qweight", name + ".lut"})

    def test_output_is_tried_first(self):
        for out, code, word in (("", USAGE, "empty"), (self.root, EXISTS, "--out needs a file"),
                                (os.path.join(self.root, "no", "x"), NOT_FOUND, "cannot create it"),
                                ("/dev/null", EXISTS, "special file")):
            # a weight that is not there would be missed later
            done = GANQ.run("quantize-layer", self.file, "--weight", "none", "--out", out, expect=code)
            self.assert_says(done, word)
        self.assert_no_leftovers()

    def test_small_damping(self):
        """A damping that f32 takes for 0 is not the default, which tries more than one."""
        rows = [[(3.0 if i == j else 0.0) + 1.0 / (1 + abs(i - j)) for j in range(48)] for i in range(48)]
        write_safetensors(self.file, {"a": floats((32, 48)), "H": ("F64", [48, 48], struct.pack("<2304d", *sum(rows, [])))})
        E = {}
        for damping in (None, "0", "1e-50", "1e-30", "1e-320"):
            words = () if damping is None else ("--damping", damping)
            E[damping] = GANQ.json("quantize-layer", self.file, "--weight", "a", "--hessian", "H", "--bits", 3, "--json",
                                   *words)["E"]
        self.assertNotEqual(E[None], E["0"])
        for damping in ("1e-50", "1e-30", "1e-320"):
            self.assertEqual(E[damping], E["0"], damping)

    def test_bad_input(self):
        def run(*words, expect):
            return GANQ.run("quantize-layer", self.file, *words, expect=expect)
        self.assert_says(run("--weight", "c", expect=NOT_FOUND), '"c"')
        self.assert_says(run("--weight", "a.weight", "--hessian", "G", expect=NOT_FOUND), '"G"')
        self.assert_says(run("--weight", "odd", expect=FAILURE), "I8")
        self.assert_says(run("--weight", "H", "--hessian", "a.weight", expect=USAGE), "a.weight")
        self.assert_says(run("--weight", "a.weight", "--rows", "0:41", expect=USAGE), "40 rows")
        bad = bytearray(floats((4, 4))[2])
        bad[20:24] = b"\0\0\xc0\x7f"
        write_safetensors(self.file, {"nan": ("F32", [4, 4], bytes(bad))})
        self.assert_says(run("--weight", "nan", expect=FAILURE), "row 1")
        with open(self.file, "wb") as file:
            file.write(b"\xff" * 100)
        run("--weight", "a", expect=FAILURE)


class Run(Base):
    def test_perplexity(self):
        document = GANQ.json("perplexity", self.model, "--text", self.text, "--protocol", "document", "--ctx", 64,
                             "--max-tokens", 100, "--json")
        self.assertEqual(document["protocol"], "document")
        self.assertEqual(document["tokens"], 126)  # two documents of 64 tokens
        self.assertGreater(document["perplexity"], 1)
        gptq = GANQ.json("perplexity", self.model, "--text", self.text, "--ctx", 32, "--json")
        self.assertEqual(gptq["protocol"], "gptq")
        self.assertEqual(gptq["numerics"], "fast")
        self.assertEqual(gptq["tokens"], 31 * gptq["sequences"])
        skipped = GANQ.json("perplexity", self.model, "--text", self.text, "--protocol", "document", "--skip", 10,
                            "--json")
        self.assertEqual(skipped["sequences"], 2)
        self.assertIn("protocol gptq", GANQ.run("perplexity", self.model, "--text", self.text).stdout)
        empty = self.path("empty.txt")
        open(empty, "w", encoding="utf-8").close()
        self.assertIn(GANQ.run("perplexity", self.model, "--text", empty, expect=None).returncode, (USAGE, FAILURE))

    def test_generate(self):
        words = ("generate", self.model, "-n", 20, "--ignore-eos", "--prompt", "the cat")
        greedy = GANQ.run(*words).stdout
        self.assertTrue(greedy.startswith("the cat"), greedy)
        self.assertEqual(GANQ.run(*words, "--temp", 0).stdout, greedy)
        self.assertEqual("the cat" + GANQ.run(*words, "--no-prompt").stdout, greedy)
        drawn = GANQ.run(*words, "--temp", 1.5, "--top-k", 50, "--top-p", 0.95, "--min-p", 0.01, "--seed", 3).stdout
        again = GANQ.run(*words, "--temp", 1.5, "--top-k", 50, "--top-p", 0.95, "--min-p", 0.01, "--seed", 3).stdout
        other = GANQ.run(*words, "--temp", 1.5, "--top-k", 50, "--top-p", 0.95, "--min-p", 0.01, "--seed", 4).stdout
        self.assertEqual(drawn, again)
        self.assertNotEqual(drawn, other)
        self.assert_says(GANQ.run("generate", self.model, "--prompt", "", "-n", 5, "--stats"), "generated")
        self.assert_says(GANQ.run("generate", self.model, "--prompt", "x" * 500, expect=USAGE), "")

    def test_export(self):
        out, again = self.path("dense"), self.path("again")
        GANQ.run("quantize", self.model, again, "--recipe", "rtn")
        GANQ.run("export", again, out, "--dtype", "bf16")
        facts = GANQ.json("inspect", out, "--json", "--tensors")
        self.assertEqual(facts["linears_quantized"], 0)
        self.assertEqual({t["dtype"] for t in facts["tensors"]}, {"BF16"})
        GANQ.run("export", again, out, expect=EXISTS)
        GANQ.run("export", again, out, "--dtype", "f32", "--force")
        measure = ("--text", self.text, "--ctx", 64, "--json", "--numerics", "exact")
        ours = GANQ.json("perplexity", again, *measure)["perplexity"]
        theirs = GANQ.json("perplexity", out, *measure)["perplexity"]
        self.assertAlmostEqual(ours / theirs, 1, places=4)

    def test_bench(self):
        gemm = GANQ.json("bench", "gemm", "--shape", "64x100", "--bits", 3, "--m", 2, "--seconds", 0, "--threads", 2, "-o",
                         "json")
        for key in ("ms", "gb_per_s", "read_floor_share", "rel_error", "gflops"):
            self.assertIsInstance(gemm[key], float)
        self.assertLess(gemm["rel_error"], 3e-4)
        self.assertEqual(gemm["numerics"], "fast")
        gemm = GANQ.json("bench", "gemm", "--shape", "64x100", "--seconds", 0, "--numerics", "exact", "-o", "json")
        self.assertLess(gemm["rel_error"], 1e-5)
        self.assertEqual(gemm["numerics"], "exact")
        self.assertEqual(gemm["threads"], 2)
        table = GANQ.run("bench", "gemm", "--shape", "32x32", "--bits", "2,4", "--m", "1,3", "--seconds", 0).stdout
        self.assertEqual(len(table.splitlines()), 6)
        rows = GANQ.run("bench", "gemm", "--shape", "32x32", "--seconds", 0, "-o", "csv").stdout.splitlines()
        self.assertEqual(len(rows[0].split(",")[0:4]), 4)
        self.assertIn("shape", rows[0].split(","))
        odd = os.path.join(self.root, 'a,b "c"\n')
        os.symlink(self.model, odd)
        text = GANQ.run("bench", "decode", odd, "--prompt-tokens", 4, "-n", 2, "-o", "csv").stdout
        rows = list(csv.reader(io.StringIO(text)))
        self.assertEqual(len(rows), 2)
        self.assertEqual(len(rows[0]), len(rows[1]))
        self.assertEqual(dict(zip(*rows))["model"], odd)
        self.assert_says(GANQ.run("bench", "gemm", "--bits", "2,7", "--shape", "32x32", "--seconds", 0, expect=USAGE), "7")
        decode = GANQ.json("bench", "decode", self.model, "--prompt-tokens", 8, "-n", 4, "-o", "json")
        self.assertGreater(decode["decode_tokens_per_s"], 0)
        self.assertGreater(decode["prefill_tokens_per_s"], 0)
        self.assertGreater(decode["read_floor_share"], 0)
        self.assertEqual(decode["numerics"], "fast")
        short = GANQ.json("bench", "decode", self.model, "--prompt-tokens", 20, "--context", 5, "-n", 3, "-o", "json",
                          "--numerics", "exact")
        self.assertEqual((short["decode_context"], short["decode_tokens"], short["numerics"]), (5, 3, "exact"))
        for words in ((), (self.model, "--shape", "llama2-7b"), ("--shape", "llama2-8b")):
            self.assert_says(GANQ.run("bench", "decode", *words, expect=USAGE), "shape")
        solver = GANQ.json("bench", "quantize", "--shape", "16x48", "--recipe", "fast", "-o", "json")
        self.assertGreater(solver["E"], 0)
        self.assertIn("seconds", solver)
        self.assertGreater(solver["peak_over_inputs"], 0)
        for stage in ("prepare", "starts", "assign", "tables", "descent", "finish", "rest"):
            self.assertGreaterEqual(solver[stage + "_s"], 0, stage)
        for share in ("assign_share", "tables_share", "descent_share"):
            self.assertGreater(solver[share], 0)
        paper = GANQ.json("bench", "quantize", "--shape", "16x48", "--recipe", "paper", "-o", "json")
        self.assertIsNone(paper["descent_share"])
        sums = GANQ.json("bench", "hessian", "--inputs", 40, "--tokens", 100, "-o", "json")
        self.assertEqual([row["x"] for row in sums], ["f32", "f16", "bf16"])
        self.assertTrue(all(row["gflops"] > 0 for row in sums))

    def test_full_output(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([GANQ.path, "version"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, FAILURE)
        self.assertIn("standard output", done.stderr)

    def test_shipped_model(self):
        model = os.path.join(SOURCE, "examples", "data", "tiny-llama")
        text = os.path.join(SOURCE, "examples", "data", "text", "evaluation.jsonl")
        if not os.path.exists(os.path.join(model, "model.safetensors")):
            self.skipTest("examples/data/tiny-llama is not there")
        dense = GANQ.json("perplexity", model, "--text", text, "--protocol", "document", "--ctx", 256, "--max-tokens",
                          1000, "--json")["perplexity"]
        self.assertLess(dense, 400)  # far below its vocabulary of 2048
        story = GANQ.run("generate", model, "--prompt", "Once upon a time", "-n", 30).stdout
        self.assertTrue(story.startswith("Once upon a time"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
