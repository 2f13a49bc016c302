#!/usr/bin/env bash
# Warns of files over 600 lines and functions over 60: split by noun, or know why not. Never fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
git ls-files -co --exclude-standard -z '*.c' '*.h' | xargs -0 -r awk '
    FNR == 1 { start = 0 }
    FNR == 601 { print FILENAME ": over 600 lines" }
    /^{$/ { start = FNR }
    /^}$/ && start { if (FNR - start > 61) print FILENAME ":" start ": a function of " FNR - start - 1 " lines"; start = 0 }'
