"""demo.py GANQ [MODEL_DIR [TEXT]]: the main job as one table; examples/demo.sh builds GANQ and calls this.

Dense perplexity, then every recipe at 4, 3 and 2 bits: bits per weight, size, relative layer error, perplexity, seconds;
then text from the dense and the 4-bit model after the same prompt.
"""
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PROMPT = "Once upon a time"


def ganq(*arguments):
    """Runs the command; its standard output."""
    command = [str(a) for a in (GANQ, *arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}: exit {result.returncode}")
    return result.stdout


def documents(path):
    """The documents of a text file, by the rules of `ganq --help`: .jsonl, .json list, plain text; .gz of each."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as file:
        text = file.read()
    name = path.with_suffix("") if path.suffix == ".gz" else path
    if name.suffix == ".jsonl":
        items = [json.loads(line) for line in text.splitlines() if line.strip()]
    elif name.suffix == ".json":
        items = json.loads(text)
    else:
        return [text]
    return [i if isinstance(i, str) else i["text"] for i in items]


def halves(path, directory):
    """Calibration and evaluation from one text: its first and second half, so that neither has seen the other."""
    texts = documents(path)
    if len(texts) == 1:
        middle = texts[0].find("\n", len(texts[0]) // 2) + 1 or len(texts[0]) // 2
        texts = [texts[0][:middle], texts[0][middle:]]
    parts = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    paths = directory / "calibration.jsonl", directory / "evaluation.jsonl"
    for part, out in zip(parts, paths):
        out.write_text("".join(json.dumps({"text": t}) + "\n" for t in part))
    return paths


def size_text(bytes_):
    return f"{bytes_ / 1e6:.2f} MB" if bytes_ < 1e9 else f"{bytes_ / 1e9:.2f} GB"


def main():
    own = len(sys.argv) < 3
    model = HERE / "data/tiny-llama" if own else pathlib.Path(sys.argv[2])
    scratch = pathlib.Path(os.environ.get("GANQ_DEMO_DIR") or tempfile.mkdtemp(prefix="ganq-demo-"))
    scratch.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 3:
        calibration, evaluation = halves(pathlib.Path(sys.argv[3]), scratch)
    else:
        calibration, evaluation = HERE / "data/text/calibration.jsonl", HERE / "data/text/evaluation.jsonl"
    positions = json.loads((model / "config.json").read_text()).get("max_position_embeddings", 2048)
    context = min(positions, 2048)
    sampling = ["--calib", calibration, "--sampling", "documents", "--nsamples", 128, "--seqlen", context]
    measure = ["--text", evaluation, "--protocol", "document", "--ctx", context, "--progress", "none", "--json"]

    dense = json.loads(ganq("perplexity", model, *measure))
    inspected = json.loads(ganq("inspect", model, "--json"))
    print(f"{model}: {inspected['parameters']:,} parameters; perplexity over {dense['tokens']} tokens of "
          f"{evaluation.name}, protocol {dense['protocol']}, context {context}\n")
    header = f"{'':16} {'bits/weight':>11} {'linears':>10} {'layer error':>11} {'perplexity':>10} {'seconds':>8}"
    print(header + "\n" + "-" * len(header))
    print(f"{'dense':16} {inspected['bits_per_weight']:11.2f} {size_text(inspected['linear_bytes']):>10} {'':11} "
          f"{dense['perplexity']:10.3f}", flush=True)
    for bits in (4, 3, 2):
        for recipe in ("rtn", "paper", "default"):
            out = scratch / f"{bits}-bit-{recipe}"
            report_path = scratch / f"{bits}-bit-{recipe}.json"
            # Rounding to nearest does not depend on the inputs: nothing to propagate.
            ganq("quantize", model, out, "--bits", bits, "--recipe", recipe, *sampling, "--propagate",
                 "off" if recipe == "rtn" else "on", "--progress", "none", "--force", "--report", report_path)
            totals = json.loads(report_path.read_text())["totals"]
            measured = json.loads(ganq("perplexity", out, *measure))
            print(f"{bits} bit {recipe:10} {totals['bits_per_weight']:11.2f} {size_text(totals['linear_bytes']):>10} "
                  f"{totals['E']:11.2e} {measured['perplexity']:10.3f} {totals['seconds']:8.1f}", flush=True)
    for name, path in (("dense", model), ("4 bit, default", scratch / "4-bit-default")):
        print(f"\n{name}:\n" + ganq("generate", path, "--prompt", PROMPT, "-n", 80, "--temp", 0).strip())
    print(f"\nquantized models: {scratch}")


GANQ = sys.argv[1]
main()
