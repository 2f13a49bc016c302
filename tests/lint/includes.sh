#!/usr/bin/env bash
# The floors: who may include whom, where vendor headers may be, what a header of ours looks like.
set -euo pipefail
cd "$(dirname "$0")/../.."

# A folder includes itself and what stands before it in this line.
proxy_floors=(base spec wire relay admin run main)
# What controller/ may include of proxy/.
controller_sees=('base/*' 'spec/*' admin/http.h)
# controller/kube/ knows nothing of the rest of controller/ and of proxy/ only this.
kube_sees=('base/*')
# Vendor headers and the only files that may include them (patterns of bash; one line each).
vendor_homes=(
    'yaml.h           proxy/spec/spec_yaml.[ch] proxy/spec/spec_fields.h proxy/spec/spec_parse.c proxy/spec/spec_emit.c
                      controller/kube/kube_yaml.c'
    'openssl/*        proxy/spec/spec_cert.c proxy/wire/request.c proxy/wire/response.c
                      proxy/relay/tls*.[ch] proxy/relay/sock*.[ch] proxy/relay/server.c
                      proxy/run/connect.c proxy/run/table.c proxy/run/plan.c proxy/run/source.c proxy/run/reload.c
                      controller/publish.c controller/kube/kube_creds.c'
    'ares*.h          proxy/relay/resolve.c'
    'curl/*           controller/kube/kube_wire.c'
    'jansson.h        controller/*'
    'libwebsockets.h  proxy/run/connect.c proxy/admin/http_ws.c'
)
# C8's keys. Shape, Owner and Threads always; the others where there is something to say, in this order.
header_keys='Shape Units Owner Errors Limits Threads Source'

libc_headers=$(dpkg -L libc6-dev linux-libc-dev)
failed=0
complain() {
    echo "$*"
    failed=1
}

floor_of() {
    local i name=${1#proxy/}
    case $name in */*) name=${name%%/*} ;; *) name=main ;; esac
    for i in "${!proxy_floors[@]}"; do
        [ "${proxy_floors[$i]}" != "$name" ] || { echo "$i" && return; }
    done
    echo none
}

check_own_include() { # FILE LINE NAME
    local mine theirs
    case $1 in
    proxy/*)
        [ -f "proxy/$3" ] || complain "$1:$2: \"$3\" is no file below proxy/; write \"floor/name.h\""
        mine=$(floor_of "$1") theirs=$(floor_of "proxy/$3")
        [ "$mine" != none ] || complain "$1:$2: no floor; the floors are ${proxy_floors[*]}"
        [ "$theirs" = none ] || [ "$mine" = none ] || [ "$theirs" -le "$mine" ] ||
            complain "$1:$2: ${proxy_floors[$mine]} may not include \"$3\": floors look down only (${proxy_floors[*]})"
        ;;
    controller/*)
        [ -f "proxy/$3" ] || [ -f "controller/$3" ] ||
            complain "$1:$2: \"$3\" is no file below proxy/ or controller/; write \"floor/name.h\", \"kube/name.h\" or \"name.h\""
        local pattern seen=('kube/*' "${kube_sees[@]}")
        case $1 in controller/kube/*) ;; *) seen=('kube/*' '[!/]*.h' "${controller_sees[@]}") ;; esac
        for pattern in "${seen[@]}"; do
            # shellcheck disable=SC2053
            [[ $3 == $pattern ]] && { [ "$pattern" != '[!/]*.h' ] || [ -f "controller/$3" ]; } && return 0
        done
        complain "$1:$2: ${1%/*}/ may include only ${seen[*]}, not \"$3\""
        ;;
    esac
}

check_vendor_include() { # FILE LINE NAME
    local entry pattern homes home
    for entry in "${vendor_homes[@]}"; do
        read -r -d '' -a homes <<<"$entry" || true
        pattern=${homes[0]}
        # shellcheck disable=SC2053
        [[ $3 == $pattern ]] || continue
        for home in "${homes[@]:1}"; do
            # shellcheck disable=SC2053
            [[ $1 != $home ]] || return 0
        done
        complain "$1:$2: <$3> belongs in ${homes[*]:1} only"
        return 0
    done
    [[ $3 == @(stdarg|stdatomic|stdbool|stddef|float|stdalign|stdnoreturn).h ]] || # the compiler's own
        grep -qxE "/usr/include(/[^/]+-linux-gnu)?/$3" <<<"$libc_headers" ||
        complain "$1:$2: <$3> is no header of the C library; a vendor header needs a home in tests/lint/includes.sh"
}

check_header() { # FILE
    local guard text keys order key
    guard=$(tr 'a-z/.' 'A-Z__' <<<"$1" | tr -c 'A-Z0-9_\n' _)
    [ "$(grep -cxE "#(ifndef|define) $guard" "$1")" = 2 ] || complain "$1: the guard must be $guard"
    text=$(awk '{ print } /\*\// { exit }' "$1")
    [[ $text == "/* ${1##*/} - "?* ]] || complain "$1: must open with \"/* ${1##*/} - what it is\" (style.md C8)"
    keys=$(sed -nE 's/^ \* ([A-Z][a-z]+): .*/\1/p' <<<"$text" | tr '\n' ' ')
    for key in Shape Owner Threads; do
        [[ " $keys" == *" $key "* ]] || complain "$1: its opening comment lacks \"$key:\""
    done
    order=$(for key in $header_keys; do [[ " $keys" != *" $key "* ]] || printf '%s ' "$key"; done)
    [ "$keys" = "$order" ] || complain "$1: keys of its opening comment: \"$keys\", wanted in this order: $header_keys"
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -Iproxy -Icontroller -x c - <<<"#include \"$1\"" \
        -I. || complain "$1: does not compile alone"
}

mapfile -t files < <(git ls-files -co --exclude-standard 'proxy/*.[ch]' 'controller/*.[ch]')
while IFS=: read -r file line text; do
    name=$(sed -E 's/.*["<]([^">]+)[">].*/\1/' <<<"$text")
    case $text in
    *'"'*) check_own_include "$file" "$line" "$name" ;;
    *) check_vendor_include "$file" "$line" "$name" ;;
    esac
done < <(grep -nHE '^[[:space:]]*#[[:space:]]*include' "${files[@]}")
for file in "${files[@]}"; do
    case $file in *.h) check_header "$file" ;; esac
done
# Circles inside a floor: tsort names them.
circle=$(grep -HE '^#include "' "${files[@]}" | grep '\.h:' |
    sed -E 's|^[a-z]+/([^:]+):#include "([^"]+)".*|\1 \2|' | tsort 2>&1 >/dev/null) ||
    complain "headers include each other in a circle: $(sed 's/^tsort: //; s/-: input contains a loop://' <<<"$circle" | tr '\n' ' ')"
exit $failed
