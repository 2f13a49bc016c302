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
    mkdir -p "$copy"/{proxy/{base,spec,wire,relay,admin,run},controller,tests,deploy}
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
sees includes 'controller/ may include only base spec'
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

printf '#!/bin/bash\nfor f in $(ls); do rm $f/*; cd $1; done\n' >"$copy/tests/stop.sh"
sees shell 'SC2'
[ $failed = 1 ] || echo "$checks planted violations, all seen"
exit $failed
