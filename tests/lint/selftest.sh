#!/usr/bin/env bash
# Each lint must see what it is there for: a copy of the tree gets one violation at a time, and the lint must name it.
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
failed=0 checks=0

# A small tree of its own, so that nothing in the real one can hide a violation or stand in for it.
fresh() {
    rm -rf "${copy:?}"/*
    mkdir -p "$copy"/{proxy/{base,spec,wire,relay,admin,run},controller/kube,tests,deploy}
    cp -r tests/lint "$copy/tests/"
    cp .clang-format .clang-tidy "$copy/"
    header base low 'int low(void);'
    printf '#include "base/low.h"\n\nint low(void)\n{\n    return 1;\n}\n' >"$copy/proxy/base/low.c"
    header wire high '#include "base/low.h"

int high(void);'
    printf '[{"directory": "%s", "command": "cc -Iproxy -c proxy/base/low.c", "file": "proxy/base/low.c"}]\n' \
        "$copy" >"$copy/compile_commands.json"
    [ -d "$copy/.git" ] || git -C "$copy" init -q
}

header() { # FLOOR NAME TEXT
    local guard
    guard=PROXY_${1^^}_${2^^}_H
    printf '/* %s.h - a header\n * Shape:   one\n * Owner:   none\n * Threads: any */\n#ifndef %s\n#define %s\n\n%s\n\n#endif\n' \
        "$2" "$guard" "$guard" "$3" >"$copy/proxy/$1/$2.h"
}

# sees LINT FRAGMENT: the lint fails and says so
sees() {
    local out
    checks=$((checks + 1))
    if out=$("$copy/tests/lint/$1.sh" "${@:3}" 2>&1); then
        echo "$1.sh passed where it should say: $2"
        failed=1
    elif ! grep -qF -- "$2" <<<"$out"; then
        echo "$1.sh failed, but did not say: $2; it said:"
        echo "$out"
        failed=1
    fi
    fresh
}

fresh
for lint in includes format banned tidy shell; do
    "$copy/tests/lint/$lint.sh" "$copy" || { echo "$lint.sh fails on a clean tree" && exit 1; }
done

header base low '#include "wire/high.h"'
sees includes 'base may not include "wire/high.h"'
echo '#include "run/nothing.h"' >>"$copy/proxy/base/low.c"
sees includes '"run/nothing.h" is no file below proxy/'
echo '#include <openssl/ssl.h>' >>"$copy/proxy/base/low.c"
sees includes '<openssl/ssl.h> belongs in'
echo '#include <yaml.h>' >"$copy/proxy/spec/spec_check.c"
sees includes '<yaml.h> belongs in'
echo '#include <ares.h>' >"$copy/proxy/run/master.c"
sees includes '<ares.h> belongs in'
echo '#include <libwebsockets.h>' >"$copy/proxy/relay/pair.c"
sees includes '<libwebsockets.h> belongs in'
echo '#include <cmocka.h>' >>"$copy/proxy/base/low.c"
sees includes '<cmocka.h> is no header of the C library'
printf '#include "wire/high.h"\n' >"$copy/controller/store.c"
sees includes 'controller/ may include only kube/*'
header base low '#include "store.h"'
touch "$copy/controller/store.h"
sees includes '"store.h" is no file below proxy/'
header spec spec 'int spec(void);'
printf '#include "spec/spec.h"\n' >"$copy/controller/kube/kube_watch.c"
sees includes 'controller/kube/ may include only kube/* base/*, not "spec/spec.h"'
touch "$copy/controller/render.h"
printf '#include "render.h"\n' >"$copy/controller/kube/kube_watch.c"
sees includes 'controller/kube/ may include only kube/* base/*, not "render.h"'
echo '#include <jansson.h>' >>"$copy/proxy/base/low.c"
sees includes '<jansson.h> belongs in'
echo '#include <curl/curl.h>' >"$copy/controller/status.c"
sees includes '<curl/curl.h> belongs in'
echo '#include <curl/curl.h>' >"$copy/controller/kube/kube_http.c"
sees includes '<curl/curl.h> belongs in'
echo '#include <yaml.h>' >"$copy/controller/wss.c"
sees includes '<yaml.h> belongs in'
echo '#include <openssl/ssl.h>' >"$copy/controller/kube/kube_wire.c"
sees includes '<openssl/ssl.h> belongs in'
mkdir -p "$copy/proxy/extra" && printf '#include "base/low.h"\n' >"$copy/proxy/extra/x.c"
sees includes 'no floor'
header base low '#include "base/low2.h"' && header base low2 '#include "base/low.h"'
sees includes 'in a circle'
sed -i 's/PROXY_BASE_LOW_H/LOW_H/' "$copy/proxy/base/low.h"
sees includes 'the guard must be PROXY_BASE_LOW_H'
sed -i 1d "$copy/proxy/base/low.h"
sees includes 'must open with "/* low.h - what it is"'
sed -i '/Threads/d; s| \* Owner:   none| * Owner:   none */|' "$copy/proxy/base/low.h"
sees includes 'lacks "Threads:"'
sed -i 's/Shape: /Owner: /; 0,/Owner:   none/s//Shape:   none/' "$copy/proxy/base/low.h"
sees includes 'wanted in this order'
header base low 'size_t low(void);'
sees includes 'does not compile alone'

printf 'int  two(void);\n' >>"$copy/proxy/base/low.c"
sees format 'code should be clang-formatted'

printf '#include <string.h>\nint low(void);\nint low(void)\n{\n    char b[2];\n    memset(b, 0, sizeof(&b) * 8);\n    return *(int *)0;\n}\n' \
    >"$copy/proxy/base/low.c"
sees tidy 'error:' "$copy"

for call in 'strcpy(a, b)' 'strcat(a, b)' 'sprintf(a, "%s", b)' 'gets(a)' 'atoi(a)' 'strtok(a, b)' 'alloca(9)'; do
    printf '%s;\n' "$call" >>"$copy/proxy/base/low.c"
    sees banned "$call"
done
for host in pypi+org registry.npmjs+org deb.debian+org files.pythonhosted+org; do
    host=${host/+/.}
    echo "see https://$host/x" >"$copy/deploy/notes.md"
    sees banned "$host"
done
empty='' # so that the words do not stand here either
for tool in "p${empty}kill" "kill${empty}all"; do
    echo "$tool nginx" >"$copy/tests/stop.sh"
    sees banned "$tool"
done

# The tables and what they name are the real ones: each of these lines takes one thing away.
tables() {
    cp -r tests/unit tests/integration tests/kube tests/chart tests/e2e tests/docs tests/fuzz tests/README.md "$copy/tests/"
    cp -r proxy controller charts deploy "$copy/"
}
tables
"$copy/tests/lint/rules.sh" || { echo "rules.sh fails on a clean tree" && exit 1; }
sed -i '/^| L2 /d' "$copy/tests/kube/RULES.md"
sees rules 'RULES.md: L2 has no row'
tables
sed -n '/^| L2 /p' tests/kube/RULES.md >>"$copy/tests/kube/RULES.md"
sees rules 'L2 has a row already'
tables
sed -i '/^| C18 /d; s/^| C19 /| C18 /; $a| C19 | x | |' "$copy/tests/kube/RULES.md"
sees rules 'C19: names neither a test nor why there is none'
tables
sed -i 's/kube_reflect_later(/kube_reflect_after(/' "$copy"/controller/kube/*.[ch]
sees rules 'no kube_reflect_later where it should be'
tables
sed -i 's/lists_whole_when_a_token_is_too_old/other/' "$copy"/tests/unit/*.c
sees rules 'has no test lists_whole_when_a_token_is_too_old'
tables
rm "$copy/tests/unit/test_kube_find.c"
sees rules '0 files are named test_kube_find.c'
tables
sed -i '/^| S58 /d' "$copy/tests/README.md"
sees rules 'README.md: S58 has no row'
tables
sed -i 's/def test_only_get(/def test_other(/' "$copy/tests/integration/test_handshake_client.py"
sees rules 'has no test test_only_get'

printf '#!/bin/bash\nfor f in $(ls); do rm $f/*; cd $1; done\n' >"$copy/tests/stop.sh"
sees shell 'SC2'
[ $failed = 1 ] || echo "$checks planted violations, all seen"
exit $failed
