#!/usr/bin/env bash
# clang-tidy (checks in .clang-tidy) over proxy/ and controller/. Needs the compile commands of a build.
# tidy.sh [BUILD_DIR]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build}
[ -f "$build/compile_commands.json" ] || { echo "no $build/compile_commands.json; run cmake first" >&2 && exit 1; }
git ls-files -co --exclude-standard -z 'proxy/*.c' 'controller/*.c' |
    xargs -0 -r -n 1 -P "$(nproc)" clang-tidy -p "$build" --quiet 2> >(grep -vE '^[0-9]+ warnings? generated\.$' >&2 || true)
