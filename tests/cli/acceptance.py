"""acceptance.py GANQ - figures that stories260K must reach, with the real model and text in $GANQ_TEST_DATA; exit code
77 without them."""
import os
import shutil
import sys
import tempfile

from fixtures import Command

DENSE, TOLERANCE = 3.751, 0.002
MOST = {4: 3.90, 3: 4.75}  # perplexity of the default recipe without propagation


def main():
    data = os.environ.get("GANQ_TEST_DATA", "")
    model = os.path.join(data, "models", "stories260K")
    text = os.path.join(data, "text", "tinystories_1000.json")
    if not data or not os.path.exists(model) or not os.path.exists(text):
        print("no test data: skipped")
        return 77
    ganq = Command(sys.argv[1])
    failures = []

    def check(what, value, good):
        print("%-60s %s %s" % (what, value, "ok" if good else "NOT REACHED"))
        if not good:
            failures.append(what)

    def perplexity(path, tokens=8000, skip=0):
        return ganq.json("perplexity", path, "--text", text, "--protocol", "document", "--ctx", 512, "--max-tokens", tokens,
                         "--skip", skip, "--numerics", "exact", "--json")["perplexity"]

    root = tempfile.mkdtemp(prefix="ganq-acceptance-")
    try:
        dense = perplexity(model)
        check("dense perplexity", dense, abs(dense - DENSE) <= TOLERANCE)
        story = ganq.run("generate", model, "--prompt", "", "--temp", 0, "-n", 20).stdout.strip()
        check("greedy story", story[:60],
              story.startswith("Once upon a time, there was a little girl named Lily."))
        for bits, most in MOST.items():
            found, longer = {}, {}  # of 40,000 tokens: on 8,000 the 4-bit models differ by less than chance
            for propagate in ("off", "on"):
                out = os.path.join(root, "%d-%s" % (bits, propagate))
                ganq.run("quantize", model, out, "--bits", bits, "--calib", text, "--sampling", "documents", "--skip",
                         500, "--nsamples", 128, "--seqlen", 512, "--propagate", propagate)
                found[propagate] = perplexity(out)
                longer[propagate] = perplexity(out, 40000, 100)
            check("%d bits without propagation, at most %.2f" % (bits, most), found["off"], found["off"] <= most)
            check("%d bits with propagation, not worse" % bits, longer["on"], longer["on"] <= longer["off"])
    finally:
        shutil.rmtree(root)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
