#!/bin/sh
# instructions.sh BUILD - instructions per weight of the M = 1 kernels with AVX2, counted by callgrind (which knows no
# AVX-512), as JSON. They do not depend on the machine's mood. BUILD has lib/libganq.so.
set -eu
build=$(cd "$1" && pwd) here=$(cd "$(dirname "$0")" && pwd) work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cc -O1 -I "$here/../../include" "$here/one_product.c" -o "$work/one" -L "$build/lib" -lganq -Wl,-rpath,"$build/lib"
weights=$((256 * 4096 * 5))
echo '['
separator=' '
for numerics in fast exact; do
    for bits in 4 3 2; do
        GANQ_CPU_ISA=avx2 GANQ_NUMERICS=$numerics valgrind -q --tool=callgrind \
            --callgrind-out-file="$work/out" "$work/one" $bits
        callgrind_annotate "$work/out" | tr -d , | awk -v w=$weights -v n=$numerics -v b=$bits -v s="$separator" '
            /:rows_w[234](_0)?_m1/ && !seen++ {
                match($0, /rows_w[234_01m]*/)
                printf "%s{\"isa\": \"avx2\", \"numerics\": \"%s\", \"bits\": %d, \"function\": \"%s\", \"instructions_per_weight\": %.3f}\n",
                    s, n, b, substr($0, RSTART, RLENGTH), $1 / w }'
        separator=','
    done
done
echo ']'
