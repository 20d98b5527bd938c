#!/usr/bin/env bash
# Fuzzes every target of every package from its seeds, FUZZTIME (10s) each, as many
# at a time as there are cores. Prints a line for each, and all of what failed.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:-} -tags=nolibopusfile" FUZZTIME=${FUZZTIME:-10s} GO=${GO:-go}

one() { # package target
  local out
  if out=$("$GO" test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 20x -parallel 1 "./$1" 2>&1); then
    echo "--- PASS: $1 $2 (fuzzed)"
  else
    printf '%s\n--- FAIL: %s %s (fuzzed)\n' "$out" "$1" "$2"
    return 1
  fi
}
export -f one

git grep -ho 'func Fuzz[A-Za-z0-9_]*' -- '*_test.go' >/dev/null # there are some
git grep -o 'func Fuzz[A-Za-z0-9_]*' -- '*_test.go' |
  sed -E 's|^(.*)/[^/]*:func (.*)$|\1 \2|' | sort -u |
  xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' _
