#!/bin/sh
# The main job, from nothing: install what is missing, build, quantize a model with three recipes at 4, 3 and 2 bits, measure
# perplexity, generate text.
#   sh examples/demo.sh                     the model and the texts in examples/data
#   sh examples/demo.sh MODEL_DIR [TEXT]    any checkpoint of a supported family; TEXT (.txt, .jsonl, .json, .gz of each) is
#                                           cut in two: calibration from its first documents, perplexity on all of it
# Environment: GANQ_CUDA=ON|OFF (default: ON where a GPU answers), GANQ_DEMO_DIR (where quantized models go).
set -eu
cd "$(dirname "$0")/.."
. examples/packages.sh
ensure_packages "$build_packages python3"

cuda=${GANQ_CUDA:-}
if [ -z "$cuda" ]; then
    if nvidia-smi -L >/dev/null 2>&1; then cuda=AUTO; else cuda=OFF; fi
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ cmake --preset release -G Ninja -DGANQ_CUDA="$cuda" -DGANQ_BUILD_TESTS=OFF && cmake --build build --target ganq_cli; } >"$log" 2>&1 ||
    { cat "$log"; exit 1; }
echo "built build/bin/ganq and build/lib/libganq.so"
exec python3 examples/demo.py build/bin/ganq "$@"
