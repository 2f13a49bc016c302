#!/usr/bin/env bash
# Words that have no place here: functions without a bound, hosts of package registries, kills by name.
set -euo pipefail
cd "$(dirname "$0")/../.."
failed=0
# refuse WHY PATTERN PATHS...
refuse() {
    local why=$1 pattern=$2
    shift 2
    if git grep -nIP --untracked -e "$pattern" -- "$@"; then
        echo "^ $why"
        failed=1
    fi
}

refuse "has no bound, or no error: use the functions of proxy/base, snprintf, strtoul with checks, strsep" \
    '(?<![\w.>])(strcpy|strcat|stpcpy|sprintf|vsprintf|gets|atoi|atol|atoll|atof|strtok|strtok_r|alloca)\s*\(' proxy controller
# Split by [.] so that these lines do not find themselves.
refuse "a registry's host: the machine's own configuration says where packages come from" \
    'pypi[.]org|pythonhosted[.]org|npmjs[.](org|com)|yarnpkg[.]com|(deb|security|ftp|snapshot)[.]debian[.]org|crates[.]io|proxy[.]golang[.]org|maven[.]org' .
refuse "ends processes that are not ours: end them by pid" '\b(pk[i]ll|kill[a]ll)\b' '*.sh' '*.py' '*.c' '*.js' '*.mjs' \
    tests/run tests/debian13 tests/bench/run tests/conformance/run deploy .ci
exit $failed
