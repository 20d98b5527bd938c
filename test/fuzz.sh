#!/usr/bin/env bash
# Fuzzes every target of every package from its seeds, FUZZTIME (10s) each, as many
# at a time as there are cores. Prints a line for each, and all of what failed.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:-} -tags=nolibopusfile" FUZZTIME=${FUZZTIME:-10s} GO=${GO:-go}
BIN=$(mktemp -d)
trap 'rm -rf "$BIN"' EXIT
FOUND=$("$GO" env GOCACHE)/fuzz # where `go test -fuzz` keeps what it found, too
export BIN FOUND

# One binary a package: `go test -fuzz` would link it anew for each target.
build() { # package
  "$GO" test -c -vet=off -ldflags='-s -w' -fuzz . -o "$BIN/${1//\//+}" "./$1"
}

fuzz() { # package target time
  local seen
  seen=$FOUND/$("$GO" list "./$1")
  (cd "$1" && "$BIN/${1//\//+}" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$3" -test.fuzzminimizetime 20x \
    -test.parallel 1 -test.paniconexit0 -test.fuzzcachedir "$seen" 2>&1)
}

# The time may end while the fuzzer waits for its worker, which it then calls a failure
# without an input (golang/go#48591): such a one goes on for a number of inputs, which
# has no such end.
one() { # package target
  local out
  if out=$(fuzz "$1" "$2" "$FUZZTIME") ||
    { grep -q 'context deadline exceeded' <<<"$out" && ! grep -q 'Failing input' <<<"$out" && out=$(fuzz "$1" "$2" 2000x); }; then
    echo "--- PASS: $1 $2 (fuzzed)"
  else
    printf '%s\n--- FAIL: %s %s (fuzzed)\n' "$out" "$1" "$2"
    return 1
  fi
}
export -f build fuzz one

targets=$(git grep -o 'func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | sed -E 's|^(.*)/[^/]*:func (.*)$|\1 \2|' | sort -u) # there are some, or it fails
cut -d' ' -f1 <<<"$targets" | uniq | xargs -P "$(nproc)" -L 1 bash -c 'build "$@"' _
xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' _ <<<"$targets"
