#!/bin/sh
# check_header.sh HEADER INCLUDE_DIR: the header compiles by itself, pedantically, as C99 and as C++11.
set -eu
gcc -std=c99 -Wall -Wextra -Wpedantic -Werror -I"$2" -fsyntax-only -x c "$1"
g++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -I"$2" -fsyntax-only -x c++ "$1"
