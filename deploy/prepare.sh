#!/bin/sh
# Checks what is needed to build Parley: Go 1.26, a C compiler, pkg-config and
# libopus. With "install" as its argument, and as root on Debian, it installs what is
# missing but Go; else it says what to install.
set -eu

say() { printf 'parley: %s\n' "$*" >&2; }

# The module asks for Go 1.26; a Go from 1.21 on fetches it by itself unless it is
# told not to (GOTOOLCHAIN=local).
go=${GO:-go}
if ! command -v "$go" >/dev/null 2>&1; then
	say "Go 1.26 or newer is needed and there is no \"$go\" in PATH."
	say "Get it from https://go.dev/dl/ and unpack it:"
	say "    tar -C /usr/local -xzf go1.26*.tar.gz && export PATH=\$PATH:/usr/local/go/bin"
	exit 1
fi
if ! version=$("$go" env GOVERSION 2>&1); then
	say "Go 1.26 or newer is needed; \"$go\" says: $version"
	say "Get it from https://go.dev/dl/, or let Go fetch it: export GOTOOLCHAIN=auto"
	exit 1
fi
number=${version#go}
major=${number%%.*}
rest=${number#*.}
minor=${rest%%[!0-9]*}
case $major$minor in
'' | *[!0-9]*) say "Go 1.26 or newer is needed; \"$go\" is of an unknown version: $version"; exit 1 ;;
esac
if [ "$major" -lt 1 ] || { [ "$major" -eq 1 ] && [ "$minor" -lt 26 ]; }; then
	say "Go 1.26 or newer is needed; \"$go\" is $version."
	say "Get it from https://go.dev/dl/ (Debian's own package is too old)."
	exit 1
fi

missing=
cc=${CC:-gcc}
if ! command -v "$cc" >/dev/null 2>&1; then
	missing="gcc libc6-dev"
elif ! printf '#include <stdlib.h>\n' | "$cc" -E -x c - >/dev/null 2>&1; then
	missing=libc6-dev
fi
command -v pkg-config >/dev/null 2>&1 || missing="$missing pkg-config"
if ! pkg-config --exists opus 2>/dev/null; then
	missing="$missing libopus-dev"
fi
# Go fetches modules by HTTPS.
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] || [ ! -e /etc/debian_version ] || missing="$missing ca-certificates"
[ -n "$missing" ] || exit 0

if [ "${1:-}" = install ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
	say "installing$(printf ' %s' $missing)"
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # a list of package names
	apt-get install -y -q --no-install-recommends $missing >&2 ||
		{ apt-get update -q >&2 && apt-get install -y -q --no-install-recommends $missing >&2; }
	exit 0
fi
say "missing:$(printf ' %s' $missing)"
if command -v apt-get >/dev/null 2>&1; then
	say "install it: sudo apt-get install$(printf ' %s' $missing)"
else
	say "these are names of Debian packages; install what they are called on your system"
fi
exit 1
