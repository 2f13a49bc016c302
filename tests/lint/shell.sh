#!/usr/bin/env bash
# Every bash script is clean in the eyes of shellcheck.
set -euo pipefail
cd "$(dirname "$0")/../.."
git ls-files -co --exclude-standard -z | xargs -0 grep -lE '^#!.*(bash|sh)$|^# shellcheck shell=' -- /dev/null |
    xargs -r shellcheck -x -S warning
