#!/bin/sh
# run.sh - everything that needs a GPU: conformance tests, memory and race checks of them, benchmarks, a profile.
#
#   sh tests/gpu/run.sh pack FILE.tgz [ARCHITECTURE]   builds (default: sm_90 alone) and puts programs, the shared libraries
#                                                      they need and test data into FILE, to be carried to another machine
#   sh tests/gpu/run.sh run FILE.tgz RESULTS [STEPS]   runs them there; without a GPU it says skipped, exit code 77
#   sh tests/gpu/run.sh [RESULTS]                      both, here
#
# STEPS: some of "tests lut decode solve sanitize profile" (default: all), "explore": every plan of the products that matter
# most, or "tuned": decode again after `ganq bench tune`; the others measure with the plans that are built in. Tools that the
# machine lacks are skipped, with a notice. Only a C library and a driver are needed there. The layers of $GANQ_TEST_DATA and
# stories260K travel along where there are any.
#
# DEADLINE=SECONDS in the environment: the call ends before; a step's limit is cut to what is left, and a step for which
# nothing is left is recorded as not run.
#
# RESULTS has two files: all steps as one JSON (record.py; in docs/bench when run here), and results.tgz, which holds NAME.json
# or .out and .log of each step. Both are there, whole, after every step: a call that is killed leaves what was done.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
began=$(date +%s)
programs='gpu_lut_gemm gpu_model_ops gpu_session gpu_solver gpu_figures gpu_no_driver bench_lut'

pack() {
    file=$1 architecture=${2:-90} folder=$work/gpu
    build=$here/build-gpu
    cmake -G Ninja -B "$build" -S "$here" -DCMAKE_BUILD_TYPE=Release -DGANQ_CUDA=ON -DGANQ_WERROR=ON \
        -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH='$ORIGIN/../lib' -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags \
        -DGANQ_CUDA_ARCHITECTURES="$architecture-real" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
    ninja -C "$build" bin/ganq $programs >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
    mkdir -p "$folder/bin" "$folder/lib" "$folder/data"
    for program in $programs ganq; do
        strip -o "$folder/bin/$program" "$build/bin/$program"
        ldd "$build/bin/$program" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p'
    done | sort -u | grep -v '/lib\(c\|m\|dl\|pthread\|rt\)\.so' | while read -r library; do
        strip -o "$folder/lib/$(basename "$library")" "$library"
    done
    if [ -n "${GANQ_TEST_DATA:-}" ]; then
        mkdir "$folder/data/models" && cp -r "$GANQ_TEST_DATA/layers" "$folder/data"
        cp -r "$GANQ_TEST_DATA/models/stories260K" "$folder/data/models"
        chmod -R u+w "$folder/data"
    fi
    (cd "$here" && git rev-parse --short HEAD 2>/dev/null || echo unknown) >"$folder/commit"
    tar -C "$folder" -czf "$file" .
}

# Seconds that a step may take: the deadline's, less those for killing it and for keeping what it left.
left() { echo $((began + ${DEADLINE:-86400} - $(date +%s) - 15)); }

# What there is so far, into RESULTS.
keep() {
    [ -z "$python" ] || "$python" "$here/tests/gpu/record.py" "$results" "$records" >"$work/record.txt" || echo "no JSON"
    { tar -C "$results" -czf "$kept/results.tgz.part" . && mv "$kept/results.tgz.part" "$kept/results.tgz"; } || echo "no results.tgz"
}

# step NAME LIMIT COMMAND...: output to NAME.out, messages to NAME.log, at most LIMIT seconds
step() {
    name=$1 limit=$2 code=0 room=$(left) start=$(date +%s)
    shift 2
    if [ "$room" -lt 5 ]; then
        echo "$name: not run: no time left"
        echo "$name - no time left" >>"$results/steps.txt"
        return
    fi
    [ "$limit" -lt "$room" ] || limit=$room
    timeout -k 10 "$limit" "$@" >"$results/$name.out" 2>"$results/$name.log" || code=$?
    echo "$name: exit $code, $(($(date +%s) - start)) s"
    echo "$name $code $(($(date +%s) - start))" >>"$results/steps.txt"
    [ "$code" = 0 ] || { failed="$failed $name"; tail -n 5 "$results/$name.out"; tail -n 5 "$results/$name.log"; }
    keep
}
# Of the step that was the last: lines of its output, and its output under another name.
show() { [ ! -f "$results/$name.out" ] || grep -hE "$1" "$results/$name.out" || true; }
rename() { [ ! -f "$results/$name.out" ] || mv "$results/$name.out" "$results/$name.$1"; }
has() {
    command -v "$1" >/dev/null 2>&1 || { echo "$1: skipped, not on this machine"; return 1; }
}
wanted() { case " $steps " in *" $1 "*) ;; *) return 1 ;; esac }

run() {
    folder=$work/run kept=$2 steps=${3:-tests lut decode solve sanitize profile} results=$work/results
    failed=
    python=$(command -v python3 || true)
    [ -n "$python" ] || echo "python3: not on this machine, no JSON"
    mkdir -p "$kept" "$folder" "$results"
    tar -C "$folder" -xzf "$1"
    export CK_FORK=no CK_DEFAULT_TIMEOUT=600 GANQ_TEST_DATA="$folder/data"
    tuned=${GANQ_CACHE_DIR:-$results/cache}
    export GANQ_CACHE_DIR="$work/none" # measured plans are for the step "tuned" alone
    [ -d "$GANQ_TEST_DATA/layers" ] || unset GANQ_TEST_DATA
    bin=$folder/bin
    {
        date -u +%Y-%m-%dT%H:%MZ
        cat "$folder/commit"
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.memory --format=csv,noheader ||
            echo "no nvidia-smi"
    } >"$results/machine.txt" 2>/dev/null
    cat "$results/machine.txt"
    : >"$results/steps.txt"
    step first 60 "$bin/bench_lut" once 16x64
    [ "$code" != 77 ] || exit 77
    if wanted tests; then
        for test in gpu_no_driver gpu_lut_gemm gpu_model_ops gpu_session gpu_solver gpu_figures; do
            step $test 120 "$bin/$test"
        done
        show "on the CPU"
    fi
    if wanted explore; then
        step bench_lut_all 300 "$bin/bench_lut" all bits=4,3 m=1,8,16,512,2048
        rename json
    fi
    if wanted lut; then
        step bench_lut 120 "$bin/bench_lut"
        rename json
    fi
    if wanted decode; then
        # 4, 3: norms made on the way into the products, SwiGLU where X is prepared; _all: SwiGLU everywhere; _apart: neither
        for run in 4 4_all 4_apart 3 3_apart 16; do
            bits=${run%%_*} fuse=1
            case $run in *_all) fuse=all ;; *_apart) fuse=0 ;; esac
            step decode_$run 120 env GANQ_CUDA_FUSE=$fuse "$bin/ganq" bench decode --shape llama2-7b --bits $bits --context 512 -n 128 -r 3 \
                --device cuda:0 -o json
            show '"(prefill_tokens_per_s|decode_tokens_per_s|session_s)"'
        done
    fi
    if wanted tuned; then
        step tune 240 env GANQ_CACHE_DIR="$tuned" "$bin/ganq" bench tune --device cuda:0 --shape 12288x4096 --shape 4096x4096 \
            --shape 22016x4096 --shape 4096x11008 -m 1,512 -o json
        for bits in 4 3; do
            step decode_${bits}_tuned 120 env GANQ_CACHE_DIR="$tuned" "$bin/ganq" bench decode --shape llama2-7b --bits $bits \
                --context 512 -n 128 -r 3 --device cuda:0 -o json
            show '"(prefill_tokens_per_s|decode_tokens_per_s|session_s)"'
        done
    fi
    if wanted solve; then
        for recipe in paper default; do
            for shape in 4096x4096 11008x4096 4096x11008; do
                step "solve_${recipe}_$shape" 120 "$bin/ganq" bench quantize --shape $shape --bits 4 --recipe $recipe \
                    --repeat 2 --device cuda:0 -o json
                show '"(seconds|E)"'
            done
        done
    fi
    if wanted sanitize && has compute-sanitizer; then
        for tool in memcheck racecheck; do
            for test in gpu_lut_gemm gpu_model_ops gpu_session gpu_solver; do
                step "${tool}_$test" 150 compute-sanitizer --tool $tool --error-exitcode 9 "$bin/$test"
                show "ERROR SUMMARY|RACECHECK SUMMARY"
            done
        done
    fi
    if wanted profile && has ncu; then
        step profile 150 ncu --clock-control none -k 'regex:mma_kernel|simt_kernel' --page details --csv \
            --section SpeedOfLight --section WarpStateStats --section Occupancy --section LaunchStats \
            --section MemoryWorkloadAnalysis "$bin/bench_lut" once 28672x8192 4096x4096
        rename csv
    fi
    keep
    cat "$work/record.txt" 2>/dev/null || true
    grep ' - ' "$results/steps.txt" || true
    echo "failed:${failed:- none}"
    [ -z "$failed" ]
}

usage() { sed -n '3,7p' "$0" | cut -c3- >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case "${1:-}" in
pack) [ $# -ge 2 ] || usage; pack "$2" "${3:-}" ;;
run) [ $# -ge 3 ] || usage; mkdir -p "$3"; records=$3; run "$2" "$3" "${4:-}" ;;
*)
    sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
    [ -n "$sm" ] || { echo "skipped: no GPU"; exit 77; }
    pack "$work/gpu.tgz" "$sm"
    records=$here/docs/bench
    run "$work/gpu.tgz" "${1:-$here/build-gpu/results}"
    ;;
esac
