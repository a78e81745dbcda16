#!/bin/sh
# ptxas_log.sh OBJECT COMMAND...: runs a compiler; what ptxas says of kernels goes to OBJECT.ptxas, the rest to stderr.
object=$1
shift
"$@" 2>"$object.ptxas"
status=$?
grep -v -e '^ptxas info' -e '^ *[0-9]* bytes stack frame' "$object.ptxas" >&2
grep -q '^ptxas info' "$object.ptxas" || rm -f "$object.ptxas"
exit $status
