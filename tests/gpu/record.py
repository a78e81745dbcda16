"""record.py RESULTS FOLDER - what tests/gpu/run.sh left in RESULTS, as one JSON in FOLDER: gpu-NAME-DATE.json, with machine,
driver, date, commit, and the rows of each benchmark. Prints its path."""
import json
import pathlib
import re
import sys


def objects(path):
    """The JSON in a file that may have other lines before it; None."""
    text = path.read_text(errors="replace")
    start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
    try:
        return json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else None
    except json.JSONDecodeError:
        return None


def main():
    results, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    date, commit, *machine = (results / "machine.txt").read_text().splitlines()
    record = {"machine": machine, "date": date, "commit": commit, "checks": {}, "runs": {}}
    for line in (results / "steps.txt").read_text().splitlines():
        name, code, rest = line.split(None, 2)
        record["checks"][name] = {"not_run": rest} if code == "-" else {"exit": int(code), "seconds": int(rest)}
        for suffix in (".json", ".out"):
            path = results / (name + suffix)
            found = objects(path) if path.exists() else None
            if found is not None:
                record["runs"][name] = found
                break
    for name, run in record["runs"].items():
        if name.startswith("decode_") and isinstance(run, dict):
            run["inputs"] = {"all": "norms and SwiGLU on the way", "apart": "kernels of their own", "16": "kernels of their own"}.get(
                name.split("_")[-1], "norms on the way, SwiGLU where X is prepared")
    figures = results / "gpu_figures.out"
    if figures.exists():
        record["runs"]["gpu_figures"] = [line for line in figures.read_text().splitlines() if " on the GPU" in line]
    name = re.sub(r"\W+", "-", machine[0].split(",")[0]).strip("-").lower() if machine else "unknown"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"gpu-{name}-{date[:10]}.json"
    part = out.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(out)
    print(out)


main()
