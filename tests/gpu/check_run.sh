#!/bin/sh
# check_run.sh - what run.sh makes of programs that work, fail, hang and have no time left, with scripts in their place: what
# it records, what it leaves when it is killed, what the programs see of their surroundings. Needs no GPU.
set -eu
run=$(cd "$(dirname "$0")" && pwd)/run.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "check_run.sh: $1"; cat "$work/log"; exit 1; }

# program NAME COMMANDS
program() { printf '#!/bin/sh\n%s\n' "$2" >"$work/package/bin/$1" && chmod +x "$work/package/bin/$1"; }
package() {
    mkdir -p "$work/package/bin" "$work/package/data"
    echo abcdef0 >"$work/package/commit"
    for name in gpu_no_driver gpu_lut_gemm gpu_model_ops gpu_session gpu_solver gpu_figures bench_lut ganq; do
        program $name 'echo "{\"libraries\": \"${LD_LIBRARY_PATH-none}\", \"plans\": \"$GANQ_CACHE_DIR\"}"'
    done
}
# run_steps STEPS: exit code in $code, messages in log, files in results
run_steps() {
    rm -rf "$work/results" "$work/there"
    tar -C "$work/package" -czf "$work/package.tgz" .
    code=0
    env -u GANQ_CACHE_DIR -u LD_LIBRARY_PATH sh "$run" run "$work/package.tgz" "$work/results" "$1" >"$work/log" 2>&1 || code=$?
}
unpack() {
    mkdir -p "$work/there"
    tar -C "$work/there" -xzf "$work/results/results.tgz" || fail "results.tgz is not whole"
}
recorded() { grep -q "$1" "$work/there/steps.txt" || fail "steps.txt lacks $1"; }

package
run_steps "tests tuned"
[ "$code" = 0 ] || fail "exit $code where all is well"
[ "$(ls "$work/results" | wc -l)" = 2 ] || fail "RESULTS has more than two files"
unpack
recorded "^gpu_figures 0 "
grep -q '"exit": 0' "$work"/results/gpu-*.json || fail "the JSON lacks a step"
grep -q '"libraries": "none"' "$work/there/gpu_session.out" || fail "programs are given LD_LIBRARY_PATH"
! grep -q 'results/cache' "$work/there/gpu_session.out" || fail "measured plans are used outside of the step tuned"
grep -q 'results/cache' "$work/there/decode_4_tuned.out" || fail "measured plans are not used in the step tuned"

program gpu_session 'echo broken >&2; exit 3'
run_steps tests
unpack
[ "$code" = 1 ] && grep -q "failed: gpu_session" "$work/log" && grep -q broken "$work/log" || fail "exit $code where a step fails"
recorded "^gpu_session 3 "
recorded "^gpu_solver 0 "

program gpu_lut_gemm 'sleep 100'
DEADLINE=22 run_steps tests
unpack
recorded "^gpu_lut_gemm 124 [5-7]$"
recorded "^gpu_solver - no time left"
grep -q '"not_run": "no time left"' "$work"/results/gpu-*.json || fail "the JSON does not say what was not run"

rm -rf "$work/results" "$work/there"
sh "$run" run "$work/package.tgz" "$work/results" tests >"$work/log" 2>&1 &
until grep -q "gpu_no_driver: exit" "$work/log"; do sleep 0.2; done
sleep 0.5
kill -9 $!
unpack
recorded "^gpu_no_driver 0 "

program bench_lut 'echo "no kernels" >&2; exit 4'
program gpu_lut_gemm true
run_steps tests
unpack
recorded "^first 4 "
grep -q "no kernels" "$work/log" || fail "why the first check failed is not shown"
program bench_lut 'echo "skipped: no GPU" >&2; exit 77'
run_steps tests
[ "$code" = 77 ] && grep -q skipped "$work/log" || fail "exit $code without a GPU"
