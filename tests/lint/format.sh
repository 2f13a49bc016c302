#!/usr/bin/env bash
# Every C file is as clang-format leaves it. Mend with: clang-format -i FILE
set -euo pipefail
cd "$(dirname "$0")/../.."
git ls-files -co --exclude-standard -z '*.c' '*.h' | xargs -0 -r clang-format --dry-run -Werror
