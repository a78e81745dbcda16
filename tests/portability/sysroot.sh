#!/bin/sh
# sysroot.sh FOLDER - unpacks Debian's arm64 libraries that libganq and its unit tests link into FOLDER. apt keeps its
# lists and downloads in there, too: nothing is installed, nothing of the system changes, no rights are needed.
set -eu
mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial" "$1/apt/debs"
root=$(cd "$1" && pwd)
cat >"$root/apt/conf" <<EOF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State::lists "$root/apt/lists";
Dir::State::status "$root/apt/status";
Dir::Cache "$root/apt";
EOF
: >"$root/apt/status"
export APT_CONFIG="$root/apt/conf"
apt-get update
cd "$root/apt/debs"
apt-get download zlib1g zlib1g-dev libjansson4 libjansson-dev libpcre2-8-0 libpcre2-dev libutf8proc2 libutf8proc-dev \
    check libsubunit0 libsubunit-dev
for package in *.deb; do
    dpkg-deb -x "$package" "$root"
done
rm -rf "$root/apt"
