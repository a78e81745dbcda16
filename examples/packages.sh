# packages.sh - sourced by examples/demo.sh and tests/run.sh: make sure the Debian packages named in $1 are installed.
# As root they are installed; otherwise what is missing is named and the script stops.
ensure_packages() {
    missing=
    for package in $1; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
            missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing packages:$missing" >&2
        echo "install them as root:  apt-get install -y$missing" >&2
        exit 1
    fi
    echo "installing:$missing"
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
        >"$log" 2>&1; then
        tail -20 "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
}
build_packages="gcc cmake ninja-build pkg-config libc6-dev zlib1g-dev libjansson-dev libpcre2-dev libutf8proc-dev"
test_packages="g++ binutils check python3 python3-numpy python3-setuptools python3-venv python3-wheel python3-pip
    libsimde-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
