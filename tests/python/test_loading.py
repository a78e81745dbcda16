"""How the library is found, and what is said when it is not."""
import ctypes.util
import os
import pathlib
import re
import subprocess
import sys
import unittest

import ganq
from ganq import _library


def import_ganq(**changes):
    env = dict(os.environ, **changes)
    return subprocess.run([sys.executable, "-c", "import ganq; print(ganq.version())"], env=env, capture_output=True,
                          text=True)


class Loading(unittest.TestCase):
    def test_from_environment(self):
        result = import_ganq()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.strip(), ganq.version())

    def test_failure_says_what_was_tried(self):
        result = import_ganq(GANQ_LIBRARY="/nonexistent/libganq.so")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("/nonexistent/libganq.so", result.stderr)
        self.assertIn("GANQ_LIBRARY", result.stderr)

    def test_another_library(self):
        name = ctypes.util.find_library("c")
        result = import_ganq(GANQ_LIBRARY=name)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("ImportError", result.stderr)
        self.assertIn(f"{name}: not libganq", result.stderr)

    def test_loader_is_asked(self):
        env = {"GANQ_LIBRARY": "", "LD_LIBRARY_PATH": str(pathlib.Path(os.environ["GANQ_LIBRARY"]).parent)}
        result = import_ganq(**env)
        self.assertEqual(result.returncode, 0, result.stderr)
        result = import_ganq(GANQ_LIBRARY="", LD_LIBRARY_PATH="/nonexistent")
        if result.returncode != 0:  # unless one is installed on this system
            self.assertIn("libganq.so.1", result.stderr)

    def test_abi_version(self):
        self.assertEqual(ganq.abi_version(), ganq.ABI_VERSION)

    def test_every_public_function_is_bound(self):
        syms = pathlib.Path(os.environ["GANQ_SOURCE_DIR"]) / "tests/abi/ganq.syms"
        public = {line.split("@")[0] for line in syms.read_text().split()}
        self.assertTrue(public)
        self.assertEqual(public, set(_library.PROTOTYPES))
        for name in public:
            getattr(_library.lib, name)

    def test_structs_match_the_headers(self):
        """Field names and order of every struct in the headers and in the binding."""
        from ganq import _structs
        include = pathlib.Path(os.environ["GANQ_SOURCE_DIR"]) / "include/ganq"
        text = "".join(re.sub(r"/\*.*?\*/", "", p.read_text(), flags=re.S) for p in sorted(include.glob("*.h")))
        found = {}
        for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} ganq_(\w+);", text, re.S):
            fields = [re.split(r"[\s*]+", f.strip())[-1].split("[")[0] for f in body.split(";") if f.strip()]
            found["".join(part.title() for part in name.split("_"))] = fields
        bound = {name: [f[0] for f in getattr(_structs, name)._fields_] for name in dir(_structs)
                 if name in found}
        self.assertEqual(bound, found)


if __name__ == "__main__":
    unittest.main()
