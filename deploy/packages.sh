# packages.sh - which Debian packages this project needs, and how they get onto a machine
# Sourced by deploy/quickstart and tests/run; Debian 12 and 13 hold every one of them.

# shellcheck shell=bash disable=SC2034
BUILD_PACKAGES=(gcc libc6-dev cmake ninja-build pkg-config libwebsockets-dev libssl-dev libyaml-dev libc-ares-dev
    libcurl4-openssl-dev libjansson-dev libcmocka-dev)
# iproute2 for `ss`, which names the holder of a port.
QUICKSTART_PACKAGES=(python3-websockets openssl iproute2)
# tests/kube/node, beside what it builds: the runtime below containerd, and what the network is made with.
NODE_PACKAGES=(ca-certificates gcc libc6-dev python3 openssl iproute2 runc containernetworking-plugins nftables iptables)

missing_packages() {
    local p
    for p in "$@"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || echo "$p"
    done
}

apt_quiet() {
    local log as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    log=$(mktemp)
    # Another apt may hold the lock for a while; a mirror may fail once.
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=3 "$@" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# Installs what is missing of the packages named; does nothing, and asks for nothing, when all are there.
need_packages() {
    local missing
    command -v dpkg-query >/dev/null || {
        echo "this needs Debian 12 or 13 (no dpkg here)" >&2
        return 1
    }
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        echo "not root and no sudo here; as root, run: apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}"
    apt_quiet install --no-install-recommends "${missing[@]}" 2>/dev/null && return 0
    apt_quiet update && apt_quiet install --no-install-recommends "${missing[@]}"
}
