#!/usr/bin/env python3
"""The solver's quality tables, from the built `ganq` command and a folder of real layers.

    python3 docs/bench/solver_quality.py BUILD DATA [--quick] [--only SECTIONS] [--threads T] [--json FILE]

BUILD is a build directory (bin/ganq, lib/libganq.so). DATA holds layers/, models/stories260K and
text/tinystories_1000.json, as the tests expect it in $GANQ_TEST_DATA; tiny-llama is the one under examples/data. Prints markdown tables; then each
bound that the solver is held to, the figure found, and "met" or "SHORT". Exit code 1 if one fell short.
--quick: stories260K only, without the recipe BEST's perplexities, mixed widths, and the held-out tables.
SECTIONS (stories,outliers,perplexity,mixed,asymmetric,heldout,whisper) renews a part of FILE.
Figures are written to FILE (default: solver-quality.json beside this script; none with --quick).

Standard library only; the held-out tables need NumPy and are made by solver_heldout.py beside this script.
E = sum of (w - w~) H (w - w~)^T over rows / sum of w H w^T, in float64, for the layer as stored.
"""
import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time

RECIPES = ("rtn", "paper", "fast", "default", "best")
OURS = ("fast", "default", "best")
WIDTHS = (4, 3, 2)

STORIES = "layers/stories260K.safetensors"
STORIES_LAYERS = [(f"layers.{i}.{w}.weight", f"layers.{i}.{h}.H") for i in range(5) for w, h in (
    ("wq", "attn_in"), ("wk", "attn_in"), ("wv", "attn_in"), ("wo", "wo_in"), ("w1", "ffn_in"), ("w3", "ffn_in"), ("w2", "w2_in"))]

WHISPER = "layers/whisper_tiny_encoder_0_2.safetensors"
WHISPER_ROWS = 384  # of each weight; the two mlp.0 have 1536
# Reference figures, float64 NumPy: DATA/README.md, "The Whisper layers, E per layer" (first 384 rows).
# paper: its unused entries keep their value. reference: one k-means start (H_kk^0.25), largest H_kk
# first, 1% damping, K = 10, then 6 x [tables, 4 sweeps of coordinate descent]. No figures for 2 bits.
WHISPER_REFERENCE = {
    #                      3 bits: paper, reference; 4 bits: paper, reference
    "blocks.0.attn.query": {3: (3.981e-02, 5.494e-03), 4: (1.068e-02, 1.616e-03)},
    "blocks.0.attn.key":   {3: (4.145e-02, 5.185e-03), 4: (1.018e-02, 1.604e-03)},
    "blocks.0.attn.value": {3: (3.525e-02, 5.429e-03), 4: (9.659e-03, 1.377e-03)},
    "blocks.0.attn.out":   {3: (3.011e-02, 8.765e-04), 4: (9.954e-03, 2.374e-04)},
    "blocks.0.mlp.0":      {3: (2.960e-02, 3.049e-03), 4: (2.194e-03, 8.230e-04)},
    "blocks.0.mlp.2":      {3: (3.776e-02, 3.699e-04), 4: (1.503e-02, 1.006e-04)},
    "blocks.2.attn.query": {3: (9.570e-03, 2.603e-03), 4: (1.617e-03, 7.606e-04)},
    "blocks.2.attn.key":   {3: (1.023e-02, 2.576e-03), 4: (1.752e-03, 7.700e-04)},
    "blocks.2.attn.value": {3: (7.259e-03, 2.501e-03), 4: (1.496e-03, 7.092e-04)},
    "blocks.2.attn.out":   {3: (1.852e-02, 1.219e-04), 4: (6.226e-03, 3.459e-05)},
    "blocks.2.mlp.0":      {3: (2.472e-02, 2.278e-03), 4: (7.521e-03, 6.455e-04)},
    "blocks.2.mlp.2":      {3: (2.564e-02, 3.054e-04), 4: (9.269e-03, 8.053e-05)},
}

# Bounds on stories260K: total E; perplexity on the first 8,000 tokens without propagation.
E_BOUNDS = {("default", 4): 5.9e-4, ("default", 3): 3.06e-3, ("best", 4): 5.5e-4, ("best", 3): 2.88e-3}
PERPLEXITY_BOUNDS = {("default", 4): 3.895, ("default", 3): 4.70, ("best", 4): 3.884, ("best", 3): 4.665}
OUTLIER_SHARES = (0.005, 0.01, 0.05)
BEST_BELOW_REFERENCE = 0.9  # geometric mean over the Whisper layers


def rounded(figures):
    """Numbers of a nested structure to six digits."""
    if isinstance(figures, dict):
        return {str(k): rounded(v) for k, v in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [rounded(v) for v in figures]
    return float(f"{figures:.6g}") if isinstance(figures, float) else figures


class Run:
    """Where things are, and what was found."""

    def __init__(self, arguments):
        self.ganq = os.path.join(arguments.build, "bin", "ganq")
        self.data = arguments.data
        self.threads, self.quick, self.arguments = str(arguments.threads), arguments.quick, arguments
        self.verdicts = []
        self.figures = {}

    def command(self, *words, json_output=True):
        out = subprocess.run([self.ganq, *words, "--threads", self.threads, "--progress", "none"], stdout=subprocess.PIPE,
                             text=True)
        if out.returncode:
            sys.exit(f"ganq {' '.join(words)}: exit code {out.returncode}")
        return json.loads(out.stdout) if json_output else None

    def layers(self, file, pairs, bits, recipe, rows=None, outliers=0):
        words = ["quantize-layer", os.path.join(self.data, file), "--bits", str(bits), "--recipe", recipe, "--outliers",
                 str(outliers), "--json"]
        for weight, hessian in pairs:
            words += ["--weight", weight, "--hessian", hessian]
        return self.command(*words, *(["--rows", rows] if rows else []))

    def verdict(self, line, figure, met):
        self.verdicts.append({"line": line, "figure": figure, "met": bool(met)})


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def check_ranks(run, what, bits, by_recipe):
    """E(best) <= E(default) <= E(fast) <= E(rtn) on every layer; by_recipe: lists of (name, E)."""
    worse = [fast[0] for fast, rtn in zip(by_recipe["fast"], by_recipe["rtn"]) if fast[1] > rtn[1]]
    run.verdict(f"never worse than round-to-nearest, {what}, {bits} bits", f"not {', '.join(worse)}" if worse else "every layer",
                not worse)
    wrong = [fast[0] for fast, default, best in zip(*(by_recipe[r] for r in OURS)) if not best[1] <= default[1] <= fast[1]]
    count = len(by_recipe["fast"])
    run.verdict(f"E(best) <= E(default) <= E(fast) on every layer of {what}, {bits} bits",
                f"{count - len(wrong)} of {count} layers" + (": not " + ", ".join(wrong) if wrong else ""), not wrong)


def stories(run):
    print("## stories260K: total E over its 35 linears\n")
    found = {}
    for bits in WIDTHS:
        layers = {}
        for recipe in RECIPES:
            result = run.layers(STORIES, STORIES_LAYERS, bits, recipe)
            found[f"{recipe} {bits}"] = {"E": result["E"], "seconds": round(result["seconds"], 2)}
            layers[recipe] = [(l["name"], l["E"]) for l in result["layers"]]
        check_ranks(run, "stories260K", bits, layers)
    table(["bits", *RECIPES], [[str(b)] + [f"{found[f'{r} {b}']['E']:.3e}" for r in RECIPES] for b in WIDTHS])
    for (recipe, bits), bound in E_BOUNDS.items():
        E = found[f"{recipe} {bits}"]["E"]
        run.verdict(f"stories260K, {recipe}, {bits} bits: E <= {bound:.2e}", f"{E:.3e}", E <= bound)
    run.figures["stories_E"] = found


def whisper_pairs():
    """Weight and Hessian of every layer of WHISPER_REFERENCE."""
    pairs = []
    for name in WHISPER_REFERENCE:
        short = name.rsplit(".", 1)[0] + ".qkv" if name.split(".")[-1] in ("query", "key", "value") else name
        pairs.append((f"encoder.{name}.weight", f"encoder.{short}.H"))
    return pairs


def outliers(run):
    """Geometric means over layers. A row of stories260K has 64 or 172 columns, and one outlier at most below 1%; one of
    Whisper-tiny 384 or 1536."""
    found = {}
    for what, file, pairs, rows in (("stories260K, 35 linears", STORIES, STORIES_LAYERS, None),
                                    (f"Whisper-tiny, {WHISPER_ROWS // 4} rows of 12 layers", WHISPER, whisper_pairs(),
                                     f"0:{WHISPER_ROWS // 4}")):
        print(f"## {what}: geometric mean of E with outliers\n")
        lines = []
        for bits in WIDTHS:
            for recipe in ("paper", "fast", "default"):
                E = {share: geometric_mean([l["E"] for l in run.layers(file, pairs, bits, recipe, rows, share)["layers"]])
                     for share in (0, *OUTLIER_SHARES)}
                found[f"{what.split(',')[0]} {recipe} {bits}"] = {f"{100 * share:g}%": e for share, e in E.items()}
                lines.append([str(bits), recipe] + [f"{e:.3e}" for e in E.values()])
                if recipe in OURS:
                    falls = all(E[a] >= E[b] for a, b in zip((0, *OUTLIER_SHARES), OUTLIER_SHARES))
                    run.verdict(f"{what}, {recipe}, {bits} bits: E falls with the share of outliers",
                                " -> ".join(f"{e:.3e}" for e in E.values()), falls)
        table(["bits", "recipe", "none", *(f"{100 * share:g}%" for share in OUTLIER_SHARES)], lines)
    run.figures["outliers_E"] = found


def whisper(run):
    names = list(WHISPER_REFERENCE)
    pairs = whisper_pairs()
    tall = [i for i, name in enumerate(names) if name.endswith("mlp.0")]
    found = {}
    for bits in WIDTHS:
        E, whole = {}, {}
        for recipe in ("rtn", *OURS):
            layers = run.layers(WHISPER, pairs, bits, recipe, f"0:{WHISPER_ROWS}")["layers"]
            E[recipe] = [l["E"] for l in layers]
            rest = run.layers(WHISPER, [pairs[i] for i in tall], bits, recipe, f"{WHISPER_ROWS}:1536")["layers"]
            for i, other in zip(tall, rest):
                layers[i]["error"] += other["error"]
                layers[i]["norm"] += other["norm"]
            whole[recipe] = [(l["name"], l["error"] / l["norm"]) for l in layers]
        check_ranks(run, "Whisper (all rows)", bits, whole)
        found[bits] = E
        print(f"## Whisper-tiny, {bits} bits: E of the first {WHISPER_ROWS} rows\n")
        if bits == 2:
            table(["layer", "rtn", *OURS], [[n] + [f"{E[r][i]:.3e}" for r in ("rtn", *OURS)] for i, n in enumerate(names)])
            continue
        rows, ratios = [], {r: [] for r in OURS}
        for i, name in enumerate(names):
            paper, reference = WHISPER_REFERENCE[name][bits]
            for r in OURS:
                ratios[r].append(E[r][i] / reference)
            rows.append([name, f"{E['rtn'][i]:.3e}", f"{paper:.3e}", f"{reference:.3e}"] +
                        [f"{E[r][i]:.3e} ({E[r][i] / reference:.2f})" for r in OURS])
        paper_mean = {r: geometric_mean([E[r][i] / WHISPER_REFERENCE[n][bits][0] for i, n in enumerate(names)]) for r in OURS}
        rows.append(["geometric mean / paper", "", "1", ""] + [f"{paper_mean[r]:.3f}" for r in OURS])
        rows.append(["geometric mean / reference", "", "", "1"] + [f"{geometric_mean(ratios[r]):.3f}" for r in OURS])
        table(["layer", "rtn", "paper (float64)", "reference (float64)", *OURS], rows)
        worst = max(ratios["default"])
        run.verdict(f"Whisper, default, {bits} bits: at or below the reference on every one of 12 layers",
                    f"worst ratio {worst:.3f} ({names[ratios['default'].index(worst)]})", worst <= 1)
        mean = geometric_mean(ratios["best"])
        run.verdict(f"Whisper, best, {bits} bits: {BEST_BELOW_REFERENCE} of the reference in geometric mean",
                    f"{mean:.3f}", mean <= BEST_BELOW_REFERENCE)
    run.figures["whisper_E"] = {f"{r} {b}": dict(zip(names, v)) for b, E in found.items() for r, v in E.items()}


def perplexities(run, scratch):
    """Calibration: TinyStories documents 500..627, each cut at 512 (48,324 tokens). Perplexity: document by document from
    BOS, until 8,000 tokens from document 0; the same until 40,000 from document 100, whose noise is less."""
    model = os.path.join(run.data, "models/stories260K")
    text = os.path.join(run.data, "text/tinystories_1000.json")

    def measure(directory):
        base = ["perplexity", directory, "--text", text, "--protocol", "document", "--ctx", "512", "--numerics", "exact", "--json"]
        return (run.command(*base, "--max-tokens", "8000")["perplexity"],
                run.command(*base, "--max-tokens", "40000", "--skip", "100")["perplexity"])

    def quantized(bits, recipe, propagate="off", outliers=0):
        out = os.path.join(scratch, f"{recipe}-{bits}-{propagate}-{outliers}")
        run.command("quantize", model, out, "--bits", str(bits), "--recipe", recipe, "--calib", text, "--sampling", "documents",
                    "--skip", "500", "--nsamples", "128", "--seqlen", "512", "--propagate", propagate, "--outliers",
                    str(outliers), "--numerics", "exact", json_output=False)
        return measure(out)

    found = {"dense": measure(model)}
    recipes = RECIPES[:-1] if run.quick else RECIPES
    rows = [("propagation off", "off", 0, r) for r in recipes]
    rows += [("propagation on", "on", 0, r) for r in recipes if r in OURS]
    rows += [(f"off, {100 * share:g}% outliers", "off", share, r) for share in (0.005, 0.01)
             for r in (("default",) if run.quick else ("paper", "default", "best"))]
    print("## stories260K: perplexity, first 8,000 tokens / 40,000 tokens from document 100\n")
    lines = []
    for name, propagate, share, recipe in rows:
        cells = [name, recipe]
        for bits in WIDTHS:
            pair = quantized(bits, recipe, propagate, share)
            found[f"{name}, {recipe} {bits}"] = pair
            cells.append("{:.3f} / {:.3f}".format(*pair))
        lines.append(cells)
    table(["calibration", "recipe", *(f"{b} bits" for b in WIDTHS)],
          [["dense", "", "{:.3f} / {:.3f}".format(*found["dense"]), "", ""]] + lines)
    for (recipe, bits), bound in PERPLEXITY_BOUNDS.items():
        if recipe not in recipes:
            continue
        off, on = found[f"propagation off, {recipe} {bits}"], found[f"propagation on, {recipe} {bits}"]
        run.verdict(f"stories260K, {recipe}, {bits} bits, no propagation: perplexity <= {bound}", f"{off[0]:.3f}",
                    off[0] <= bound)
        run.verdict(f"stories260K, {recipe}, {bits} bits: perplexity lower with propagation (8,000 and 40,000 tokens)",
                    f"{off[0]:.3f} -> {on[0]:.3f}, {off[1]:.3f} -> {on[1]:.3f}", on[0] < off[0] and on[1] < off[1])
    run.figures["perplexity"] = found


class Model:
    """A model with its calibration text and the perplexities that measure it."""

    def __init__(self, run, scratch, name):
        here = os.path.dirname(os.path.abspath(__file__))
        examples = os.path.join(here, "..", "..", "examples", "data")
        self.run, self.scratch, self.name = run, scratch, name
        if name == "stories260K":
            self.path = os.path.join(run.data, "models/stories260K")
            text = os.path.join(run.data, "text/tinystories_1000.json")
            self.calibration = ["--calib", text, "--skip", "500", "--nsamples", "128"]
            self.evaluation = [["--text", text, "--max-tokens", "8000"],
                               ["--text", text, "--max-tokens", "40000", "--skip", "100"]]
        else:
            self.path = os.path.join(examples, "tiny-llama")
            self.calibration = ["--calib", os.path.join(examples, "text/calibration.jsonl"), "--nsamples", "28"]
            self.evaluation = [["--text", os.path.join(examples, "text/evaluation.jsonl")]]

    def measure(self, directory):
        return [self.run.command("perplexity", directory, *text, "--protocol", "document", "--ctx", "512", "--numerics", "exact",
                                 "--json")["perplexity"] for text in self.evaluation]

    def quantized(self, *options):
        """Perplexities, and bytes of codes and tables."""
        out, report = os.path.join(self.scratch, "model"), os.path.join(self.scratch, "report.json")
        self.run.command("quantize", self.path, out, *options, *self.calibration, "--sampling", "documents", "--seqlen", "512",
                         "--numerics", "exact", "--force", "--report", report, json_output=False)
        with open(report) as file:
            return self.measure(out), json.load(file)["totals"]["linear_bytes"]


def cells(values):
    return " / ".join(f"{v:.3f}" for v in values)


def mixed_widths(run, scratch):
    """--target-bits against one width everywhere, in the same bytes. 3.5 bits everywhere is halfway between 3 and 4, where half
    of the linears have either: to first order its log perplexity is the mean of theirs."""
    print("## Mixed widths, recipe default: perplexity (bytes of codes and tables)\n")
    lines, figures = [], {}
    for name in ("stories260K", "tiny-llama"):
        model = Model(run, scratch, name)
        found = {f"--bits {b}": model.quantized("--bits", str(b)) for b in WIDTHS}
        found.update({f"--target-bits {t}": model.quantized("--target-bits", str(t)) for t in (3.5, 3, 2.5)})
        for three_half, low, high in (("--target-bits 3.5", "--bits 3", "--bits 4"), ("--target-bits 2.5", "--bits 2", "--bits 3")):
            halfway = [math.sqrt(a * b) for a, b in zip(found[low][0], found[high][0])]
            size = (found[low][1] + found[high][1]) // 2
            found[f"halfway {low}, {high[-1]}"] = halfway, size
            ppl, bytes_used = found[three_half]
            run.verdict(f"{name}, {three_half}: perplexity below halfway between {low} and {high[-1]}, in no more bytes",
                        f"{cells(ppl)} against {cells(halfway)}; {bytes_used} of {size} bytes",
                        all(a < b for a, b in zip(ppl, halfway)) and bytes_used <= size)
        ppl, bytes_used = found["--target-bits 3"]
        run.verdict(f"{name}, --target-bits 3: perplexity below --bits 3, in no more bytes",
                    f"{cells(ppl)} against {cells(found['--bits 3'][0])}; {bytes_used} of {found['--bits 3'][1]} bytes",
                    all(a < b for a, b in zip(ppl, found["--bits 3"][0])) and bytes_used <= found["--bits 3"][1])
        order = ("--bits 4", "--target-bits 3.5", "halfway --bits 3, 4", "--target-bits 3", "--bits 3", "--target-bits 2.5",
                 "halfway --bits 2, 3", "--bits 2")
        lines.append([name, cells(model.measure(model.path))] + [f"{cells(found[o][0])} ({found[o][1]})" for o in order])
        figures[name] = {"dense": model.measure(model.path), **found}
    table(["model", "dense", *order], lines)
    run.figures["mixed_widths"] = figures


def asymmetric(run, scratch):
    """What the correction towards the dense model's outputs does (--compensate, with --propagate on)."""
    print("## Asymmetric calibration, recipe default: perplexity\n")
    lines, figures = [], {}
    strengths = ("0", "0.25", "0.5", "0.75")
    ways = {"off": ("--propagate", "off"), **{f"on, {s}": ("--compensate", s) for s in strengths}}
    default = "on, 0.5"
    for name in ("stories260K", "tiny-llama"):
        model = Model(run, scratch, name)
        for bits in WIDTHS:
            found = {way: model.quantized("--bits", str(bits), *options)[0] for way, options in ways.items()}
            lines.append([name, str(bits)] + [cells(found[way]) for way in ways])
            figures[f"{name} {bits}"] = found
            run.verdict(f"{name}, {bits} bits: perplexity lower with the correction than without",
                        f"{cells(found['on, 0'])} -> {cells(found[default])}",
                        all(b < a for a, b in zip(found["on, 0"], found[default])))
    table(["model", "bits", *ways], lines)
    run.figures["asymmetric"] = figures


def heldout(run):
    """Half of the tokens make H, the other half measures; solver_heldout.py prints the tables."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        print("held-out: no NumPy, left out\n")
        run.verdict("held-out: every recipe ranks as in-sample", "not measured: no NumPy", False)
        return
    import solver_heldout
    found = solver_heldout.measure(run.arguments.build, run.data, run.arguments.threads)
    run.figures["heldout"] = found
    for bits in WIDTHS:
        inside = sorted(RECIPES, key=lambda r: found["recipes"][f"{r} {bits}"]["in"])
        outside = sorted(RECIPES, key=lambda r: found["recipes"][f"{r} {bits}"]["out"])
        run.verdict(f"held-out, {bits} bits: every recipe ranks as in-sample", " < ".join(outside), inside == outside)


SECTIONS = {"stories": stories, "outliers": outliers, "perplexity": perplexities, "mixed": mixed_widths, "asymmetric": asymmetric,
            "heldout": heldout, "whisper": whisper}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("data")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    path = arguments.json or (None if arguments.quick else os.path.join(here, "solver-quality.json"))
    run, started, found = Run(arguments), time.time(), {}
    if path and os.path.exists(path):
        with open(path) as file:
            found = json.load(file)
    names = arguments.only.split(",") if arguments.only else ["stories", "perplexity"] if arguments.quick else list(SECTIONS)
    for name in names:
        run.verdicts, run.figures = [], {}
        with tempfile.TemporaryDirectory() as scratch:
            SECTIONS[name](*((run, scratch) if name in ("perplexity", "mixed", "asymmetric") else (run,)))
        found[name] = {"machine": f"{cpu_name()}, {os.cpu_count()} CPUs", "date": datetime.date.today().isoformat(),
                       "commit": commit(), "command": "python3 docs/bench/solver_quality.py BUILD DATA" +
                       (" --quick" if arguments.quick else "") + (f" --only {arguments.only}" if arguments.only else ""),
                       "bounds": run.verdicts, **rounded(run.figures)}
        if path:
            with open(path, "w") as file:
                json.dump(found, file, indent=1)
                file.write("\n")

    verdicts = [v for name in SECTIONS if name in found for v in found[name]["bounds"]]
    print("## Bounds\n")
    table(["bound", "found", ""], [[v["line"], v["figure"], "met" if v["met"] else "SHORT"] for v in verdicts])
    short = sum(not v["met"] for v in verdicts)
    print(f"{len(verdicts) - short} of {len(verdicts)} met; {time.time() - started:.0f} s")
    return 1 if short else 0


def commit():
    out = subprocess.run(["git", "-C", os.path.dirname(os.path.abspath(__file__)), "rev-parse", "--short", "HEAD"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return out.stdout.strip() or "unknown"


def cpu_name():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
