#!/bin/sh
# Builds with warnings as errors and runs every test:
#   sh tests/run.sh                 release build, in build/
#   sh tests/run.sh asan|tsan|debug that preset's build
# Real data: GANQ_TEST_DATA=<folder>; tests that need it are reported as skipped without it.
set -eu
cd "$(dirname "$0")/.."
. examples/packages.sh
preset=${1:-release}
ensure_packages "$build_packages $test_packages"
if [ "$preset" = asan ] || [ "$preset" = tsan ]; then
    export ASAN_OPTIONS="detect_leaks=1:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset "$preset" -G Ninja -DGANQ_WERROR=ON >"$log" 2>&1 || { cat "$log"; exit 1; }
build=$(sed -n 's/^-- Build files have been written to: //p' "$log")
cmake --build "$build" >"$log" 2>&1 || { cat "$log"; exit 1; }
status=0
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" >"$log" 2>&1 || status=$?
cat "$log"

# The last lines: what was not run, and the counts.
skipped=$(sed -n 's/^ *[0-9]*\/[0-9]* Test *#[0-9]*: \([^ ]*\) .*\*\*\*Skipped.*/\1/p' "$log")
failed=$(sed -n 's/^ *[0-9]*\/[0-9]* Test *#[0-9]*: \([^ ]*\) .*\*\*\*\(Failed\|Timeout\|Not Run\|Exception\).*/\1/p' "$log")
total=$(grep -c '^ *[0-9]*/[0-9]* Test *#' "$log" || true)
count() { printf '%s' "$1" | grep -c . || true; }
n_skipped=$(count "$skipped") n_failed=$(count "$failed")
for name in $skipped; do echo "skipped: $name"; done
for name in $failed; do echo "failed: $name"; done
if [ -z "${GANQ_TEST_DATA:-}" ]; then
    echo "GANQ_TEST_DATA is not set: tests on real data were skipped, so this run is no acceptance"
fi
echo "$((total - n_skipped - n_failed)) passed, $n_failed failed, $n_skipped skipped"
exit "$status"
