#!/usr/bin/env python3
"""The solver's times, what bounds its stages, and how soon it stops, from the built `ganq` command.

    python3 docs/bench/solver_speed.py BUILD [--blas FILE] [--runs R] [--only SECTIONS] [--json FILE]

BUILD is a build directory (bin/ganq). FILE of --blas: a CBLAS library, the yardstick of products and Hessians. R runs of every
recipe and shape, the fastest counts. All of it takes about 20 minutes on two cores, of which nothing else should have a part;
SECTIONS (hessian,stages,cancellation,widths_fast,widths_default) renews a part of the JSON. Prints tables, then each bound, the figure found, and
"met" or "SHORT". Exit code 1 if one fell short. Standard library only.
"""
import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time

from solver_quality import commit, cpu_name, rounded, table

SECONDS = {"paper": 20, "fast": 12, "default": 60}  # 4096x4096, 4 bits
WIDTHS = (1024, 2048, 4096, 8192)
CANCEL_AFTER = {"paper": (2.5, 3, 3.5, 5, 8, 14), "default": (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 7, 10, 15, 20, 26)}


class Run:
    def __init__(self, arguments):
        self.ganq = os.path.join(arguments.build, "bin", "ganq")
        self.runs = arguments.runs
        self.blas = ["--blas", arguments.blas] if arguments.blas else []
        self.verdicts = []

    def command(self, *words):
        out = subprocess.run([self.ganq, *words, "--progress", "none", "-o", "json"], stdout=subprocess.PIPE, text=True)
        if out.returncode:
            sys.exit(f"ganq {' '.join(words)}: exit code {out.returncode}")
        return json.loads(out.stdout)

    def quantize(self, K, recipe):
        found = [self.command("bench", "quantize", "--shape", f"{K}x{K}", "--recipe", recipe, *self.blas) for _ in range(self.runs)]
        return min(found, key=lambda row: row["seconds"])

    def verdict(self, line, figure, met):
        self.verdicts.append({"line": line, "figure": figure, "met": bool(met)})


def stages(run):
    rows = [run.quantize(4096, recipe) for recipe in SECONDS]
    print("## 4096 x 4096, 4 bits: seconds by stage, and shares of what the machine does\n")
    columns = ["seconds", "prepare_s", "starts_s", "assign_s", "tables_s", "descent_s", "finish_s", "rest_s", "product_gflops",
               "assign_share", "descent_share", "read_gb_per_s", "tables_share", "peak_over_inputs"]
    table(["recipe", *columns], [[r["recipe"]] + ["" if r[c] is None else f"{r[c]:.3g}" for c in columns] for r in rows])
    for row in rows:
        recipe = row["recipe"]
        run.verdict(f"4096x4096, 4 bits, {recipe}: at most {SECONDS[recipe]} s", f"{row['seconds']:.1f} s",
                    row["seconds"] <= SECONDS[recipe])
        run.verdict(f"{recipe}: peak memory at most 3 (W + H in f32)", f"{row['peak_over_inputs']:.2f}", row["peak_over_inputs"] <= 3)
        for stage, what in (("assign", "the matrix product's rate"), ("descent", "the matrix product's rate"),
                            ("tables", "the rate of reading a panel")):
            if row[stage + "_share"] is not None:
                run.verdict(f"{recipe}, {stage}: half of {what}", f"{row[stage + '_share']:.2f}", row[stage + "_share"] >= 0.5)
    return rows


def widths(run, recipe):
    rows = [run.quantize(K, recipe) for K in WIDTHS]
    print("## Time per N K^2, N = K, 4 bits, in ps (seconds)\n")
    table(["recipe", *map(str, WIDTHS)], [[recipe] + [f"{r['ps_per_nk2']:.0f} ({r['seconds']:.3g})" for r in rows]])
    times = [r["ps_per_nk2"] for r in rows]
    run.verdict(f"{recipe}: time per N K^2 falls or is flat (within 10%) from K = 1024 to 8192",
                ", ".join(f"{t:.0f}" for t in times), all(b <= 1.1 * a for a, b in zip(times, times[1:])))
    return rows


def hessians(run):
    rows = run.command("bench", "hessian", "--inputs", "4096", "--tokens", "4096", *run.blas)
    print("## H += X^T X, K = 4096\n")
    table(["X", "by", "ms", "Gflop/s", "time / f32", "share of ssyrk"],
          [[r["x"], r["by"], f"{r['ms']:.0f}", f"{r['gflops']:.0f}", f"{r['time_over_f32']:.2f}",
            "" if r["share_of_blas"] is None else f"{r['share_of_blas']:.2f}"] for r in rows])
    for row in rows:
        if row["by"] != "ganq":
            continue
        if row["x"] == "f32" and run.blas:
            run.verdict("Hessian, K = 4096: 0.7 of ssyrk", f"{row['share_of_blas']:.2f}", row["share_of_blas"] >= 0.7)
        elif row["x"] != "f32":
            run.verdict(f"Hessian, {row['x']}: at most 1.15 of f32's time", f"{row['time_over_f32']:.2f}", row["time_over_f32"] <= 1.15)
    return rows


def cancellation(run):
    """SIGINT after so many seconds of `bench quantize`: how long until the process has ended, with exit code 130."""
    found = {}
    for recipe, moments in CANCEL_AFTER.items():
        found[recipe] = []
        for moment in moments:
            process = subprocess.Popen([run.ganq, "bench", "quantize", "--shape", "4096x4096", "--recipe", recipe,
                                        "--progress", "none"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(moment)
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                sent = time.monotonic()
                code = process.wait()
                found[recipe].append({"after": moment, "seconds": time.monotonic() - sent, "code": code})
    print("## Seconds from SIGINT to the end of the process, 4096 x 4096\n")
    table(["recipe", "after (s): seconds"], [[recipe, ", ".join(f"{m['after']}: {m['seconds']:.2f}" for m in rows)]
                                             for recipe, rows in found.items()])
    worst = max(m["seconds"] for rows in found.values() for m in rows if m["code"] == 130)
    run.verdict("cancellation within a second, wherever it is", f"at most {worst:.2f} s", worst <= 1)
    return found


SECTIONS = {"hessian": hessians, "stages": stages, "cancellation": cancellation,
            "widths_fast": lambda run: widths(run, "fast"), "widths_default": lambda run: widths(run, "default")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--blas", default="")
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--json", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "solver-speed.json"))
    arguments = parser.parse_args()
    run = Run(arguments)
    found = {}
    if os.path.exists(arguments.json):
        with open(arguments.json) as file:
            found = json.load(file)
    for name in arguments.only.split(","):
        run.verdicts = []
        figures = SECTIONS[name](run)
        found[name] = {"machine": f"{cpu_name()}, {os.cpu_count()} CPUs", "date": datetime.date.today().isoformat(),
                       "commit": commit(), "command": "python3 docs/bench/solver_speed.py BUILD" +
                       (f" --blas {os.path.basename(arguments.blas)}" if arguments.blas else "") + f" --runs {run.runs}",
                       "bounds": run.verdicts, "figures": rounded(figures)}
    verdicts = [v for name in SECTIONS if name in found for v in found[name]["bounds"]]
    print("## Bounds\n")
    table(["bound", "found", ""], [[v["line"], v["figure"], "met" if v["met"] else "SHORT"] for v in verdicts])
    with open(arguments.json, "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    return 0 if all(v["met"] for v in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
