"""run.py SOURCE_DIR LIBRARY: installs bindings/python into a fresh virtual environment and runs test_*.py there."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

source, library = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
with tempfile.TemporaryDirectory(prefix="ganq-python-") as scratch:
    scratch = pathlib.Path(scratch)
    # NumPy and setuptools are the system's; pip builds in a copy, so that the source tree stays clean.
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", scratch / "venv"], check=True)
    python = scratch / "venv/bin/python"
    shutil.copytree(source / "bindings/python", scratch / "binding", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation",
                    "--disable-pip-version-check", scratch / "binding"], check=True)
    env = dict(os.environ, GANQ_LIBRARY=str(library), GANQ_SOURCE_DIR=str(source), PYTHONDONTWRITEBYTECODE="1")
    env.pop("PYTHONPATH", None)
    result = subprocess.run([python, "-W", "error::ResourceWarning", "-m", "unittest", "discover", "-v", "-s",
                             source / "tests/python", "-p", "test_*.py"], env=env, cwd=scratch)
sys.exit(result.returncode)
