#!/usr/bin/env bash
# Installs the real peers and runs the interop tests against bin/parley.
# Needs root for the packages (or has them already), and Go. Arguments go to `go test`.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(baresip-core sip-tester chromium git openssl curl)
missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]})); then
  if [[ $(id -u) != 0 ]]; then
    echo "interop: install these Debian packages first: ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
for dir in test/interop sdk/js examples/js; do
  (cd "$dir" && npm ci --no-audit --no-fund --silent)
done
make build
# What needs root or Node.js beside its own package.
(($#)) || go test -tags "nolibopusfile interop" -count=1 -v -run '^(TestFullDisk|TestDiskThatRefuses|TestModules)$' ./services/names ./services/identity/account ./web
exec go test -tags "nolibopusfile interop" -count=1 -timeout 20m -v "$@" ./test/interop
