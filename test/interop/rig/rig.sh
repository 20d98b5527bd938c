#!/usr/bin/env bash
# A private network of stock Jami daemons to test against. Needs root.
#
#   rig.sh install       Debian packages, once a machine
#   rig.sh up N          N peers (namespaces rp1..rpN) and, unless RIG_DHT=none, a DHT bootstrap node
#   rig.sh exec I CMD…   run CMD in peer I's network namespace
#   rig.sh hub CMD…      run CMD in the hub's namespace (10.77.0.254)
#   rig.sh stop I        end peer I's daemon; its files stay
#   rig.sh start I       start it again
#   rig.sh down          stop what `up` started, by process id, and remove the namespaces
#
# Addresses: hub and dhtnode 10.77.0.254:4222/udp, peer I 10.77.0.I; the namespace
# `rpsut` (10.77.0.200) is free for the system under test. State lies in $RIG_STATE
# (default /tmp/jami-rig): pI/sock is peer I's D-Bus API as JSON lines,
# pI/heard.raw is what its speaker plays (s16le, mono, 48 kHz), pI/log its daemon's log.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
S=${RIG_STATE:-/tmp/jami-rig}

ns_add() { # name address
  ip netns add "$1"
  ip link add "v$1" type veth peer name eth0 netns "$1"
  ip -n rphub link show br0 >/dev/null 2>&1 || { ip -n rphub link add br0 type bridge; ip -n rphub link set br0 up; ip -n rphub addr add 10.77.0.254/24 dev br0; }
  ip link set "v$1" netns rphub
  ip -n rphub link set "v$1" master br0 up
  ip -n "$1" addr add "$2/24" dev eth0
  ip -n "$1" link set lo up
  ip -n "$1" link set eth0 up
  ip -n "$1" route add default via 10.77.0.254
}

start_peer() { # number
  local D=$S/p$1
  mkdir -p "$D/home" "$D/run"
  chmod 700 "$D/run"
  setsid ip netns exec "rp$1" env -i PATH="$PATH" LANG=C.UTF-8 HOME="$D/home" XDG_RUNTIME_DIR="$D/run" \
    PULSE_SERVER="unix:$D/pulse.sock" RIG_DIR="$D" SHIM="$S/nlshim.so" \
    dbus-run-session -- bash "$HERE/peer.sh" >>"$D/log" 2>&1 </dev/null &
  echo $! >>"$S/pids"
}

await_peer() { # number
  for _ in $(seq 1 100); do [ -S "$S/p$1/sock" ] && return; sleep 0.2; done
  echo "peer $1 did not start; see $S/p$1/log" >&2
  exit 1
}

case ${1:-} in
install)
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    jami-daemon dhtnode dbus python3-dbus python3-gi iproute2 tcpdump sox gcc libc6-dev \
    libasound2-plugins pulseaudio pulseaudio-utils ;;
up)
  N=${2:?how many peers}
  mkdir -p "$S"
  gcc -shared -fPIC -O2 -o "$S/nlshim.so" "$HERE/nlshim.c" -ldl
  ip netns add rphub
  ip -n rphub link set lo up
  ns_add rpsut 10.77.0.200
  if [ "${RIG_DHT:-dhtnode}" = dhtnode ]; then
    ip netns exec rphub dhtnode -p 4222 -s >"$S/dht.log" 2>&1 </dev/null &
    echo $! >>"$S/pids"
  fi
  for i in $(seq 1 "$N"); do
    ns_add "rp$i" "10.77.0.$i"
    start_peer "$i"
  done
  for i in $(seq 1 "$N"); do await_peer "$i"; done
  echo "rig up: $N peers, state in $S" ;;
exec) shift; i=$1; shift; exec ip netns exec "rp$i" env PULSE_SERVER="unix:$S/p$i/pulse.sock" "$@" ;;
stop)
  i=${2:?which peer}
  p=$(ip netns pids "rp$i"); [ -n "$p" ] && kill $p 2>/dev/null || true
  for _ in $(seq 1 50); do [ -z "$(ip netns pids "rp$i")" ] && break; sleep 0.1; done
  p=$(ip netns pids "rp$i"); [ -n "$p" ] && kill -9 $p 2>/dev/null || true
  rm -f "$S/p$i/sock" "$S/p$i/pulse.sock" ;;
start) i=${2:?which peer}; start_peer "$i"; await_peer "$i" ;;
hub) shift; exec ip netns exec rphub "$@" ;;
sut) shift; exec ip netns exec rpsut "$@" ;;
down)
  # Every process of the rig lives in one of its namespaces; end exactly those.
  for ns in $(ip netns list | awk '/^rp(hub|sut|[0-9]+)( |$)/{print $1}'); do
    p=$(ip netns pids "$ns"); [ -n "$p" ] && kill $p 2>/dev/null || true
  done
  sleep 1
  for ns in $(ip netns list | awk '/^rp(hub|sut|[0-9]+)( |$)/{print $1}'); do
    p=$(ip netns pids "$ns"); [ -n "$p" ] && kill -9 $p 2>/dev/null || true
    ip netns del "$ns"
  done
  rm -rf "$S" ;;
*) sed -n '2,18p' "$0" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac
