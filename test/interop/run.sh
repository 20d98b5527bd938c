#!/usr/bin/env bash
# Installs the real peers and runs the interop tests against bin/parley.
# Needs root for the packages (or has them already), and Go. Arguments go to `go test`.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(baresip-core sip-tester chromium git openssl curl gdb slapd python3-yaml zbar-tools librsvg2-bin dhtnode python3-opendht nftables libnss3-tools iperf3)
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
if (($#)); then
  exec go test -tags "nolibopusfile interop" -count=1 -timeout 20m -v "$@" ./test/interop
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
go test -tags "nolibopusfile interop" -vet=off -c -o "$scratch/interop.test" ./test/interop

# Tests that measure neither gaps in sound nor time are run beside one another: those with stock
# daemons, of which there is one rig at a time; others of the built node; and what needs
# root, Node.js or OpenDHT's nodes beside its own package, which waits for values to
# expire. All others have the machine to themselves.
rig='TestArchivesAndStockDaemons|TestOurDeviceInStockDaemons|TestStockDaemonHasManagedAccount|TestMessagesOverOpenDHT'
rig+='|TestStockDaemonUsesOurNameServer|TestStockCallsOverOurNodes|TestDevicesMeetOverOpenDHT|TestRequestsOverOpenDHT'
rig+='|TestStockBehindOurProxy|TestStockCallsByOurRelay|TestTextsOverAConnection|TestStockFetchesAFile|TestFilesBetweenNodes'
rig+='|TestNATs|TestNodeCallsStock|TestNodeCallsAllDevices|TestStockConnects|TestStockInCall|TestStockRendezvous|TestRosterAsOfAStockHost|TestCallsLast'
rig+='|TestConversationWithStock|TestNodeStartsAConversation|TestGroupWithStock|TestLargeFilesWithStock'
node='TestAccountsOnTheOperatorsPage|TestOperatorsPageWithManyAccounts|TestOrganisationOnTheOperatorsPage|TestDamagedState'
node+='|TestSim|TestBenchSoak|TestBenchKeys|TestBenchScale|TestRefusedStarts|TestPrivateKeysStayInIdentity|TestPhoneWithPIN|TestAnotherAccountsRooms|TestExamples|TestStorageKey'
node+='|TestNodesWithoutTCP|TestNodesBehindNATs|TestMuteOutlivesTheSeat|TestBotsOutliveTheNode|TestMalformedSignalling|TestBrowserWithoutUDP|TestDevicesAreShutOut|TestFullDisk'
node+='|TestRoomOverTwoWorkers|TestRefusedWorkers|TestWorkerIsRevoked|TestWorkerTakesCalls|TestStartOnAnExistingAccount|TestBrowserWithUDPNeedsNoRelay|TestBrowserWithTLSAlone|TestBenchChaos|TestBenchChaosMachines|TestHowParticipantsAreConnected|TestNodeCallsPhones'
export scratch rig node
if gone=$(tr '|' '\n' <<<"$rig|$node" | grep -vxFf <("$scratch/interop.test" -test.list .)); then
  echo "interop: run.sh names tests that are not there:" $gone >&2
  exit 1
fi

built() ( # flags of a test binary
  cd test/interop && "$scratch/interop.test" -test.timeout 20m -test.v "$@"
)
with_rig() { built -test.run "^($rig)\$"; }
with_node() { built -test.run "^($node)\$"; }
packages() {
  local failed=0
  go test -tags "nolibopusfile interop" -count=1 -v -run '^(TestFullDisk|TestDiskThatRefuses|TestModules|TestReader|TestSlapd.*)$' \
    ./internal/qr ./services/names ./services/jams/... ./services/identity/account ./web || failed=1
  go test -tags "nolibopusfile interop" -p 3 -count=1 -v -run '^(TestInterop|TestInteropNetworks|TestInteropConformance|TestSameAnswersAsStock|TestValuesAcrossProxies|TestExpiryAcrossProxies|TestPython)$' \
    ./services/dht/opendht ./services/dht/proxyclient ./services/dht/proxy || failed=1
  [[ $(id -u) = 0 ]] || return $failed
  unshare -n sh -c 'ip link set lo up; ip link add lan type veth peer name wan; ip link set lan up; ip link set wan up; ip addr add 192.0.2.1/24 dev lan
    ip addr add 2001:db8::1/64 dev lan nodad; ip route add default dev lan; ip -6 route add default dev lan; sleep 2 # the link comes up
    go test -tags "nolibopusfile interop" -count=1 -v -run "^TestInteropLAN$" ./services/dht/opendht' || failed=1
  unshare -n sh -c 'ip link set lo up; ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up multicast on; ip addr add 192.168.77.1/24 dev d0
    ip route add default via 192.168.77.2; PARLEY_TEST_IGD=192.168.77.1 go test -tags nolibopusfile -count=1 -v -run "^TestDiscovery$" ./internal/portmap' || failed=1
  return $failed
}
export -f built with_rig with_node packages

rest() { built -test.skip "^($rig|$node)\$"; }
export -f rest

# What a log says failed, as TEST, or PACKAGE TEST of a package's own tests. A log that ends
# in the midst of a test, of a panic say, names none.
failed_in() {
  awk '
    /^--- FAIL: / { name[n++] = $3 }
    /^panic: / { exit }
    /^FAIL\t/ { for (i = 0; i < n; i++) print $2, name[i]; n = 0; next }
    /^FAIL$/ { ended = 1 }
    END { if (ended) for (i = 0; i < n; i++) print name[i] }
  ' "$1"
}

# Real peers on a crowded machine fail now and then for reasons of their own. What failed
# has one more chance with the machine to itself; both tries are told of, and the first is
# counted as unsteady. More than three failures are no accident.
again() { # log
  local names pkg test
  names=$(failed_in "$1")
  [[ -n $names ]] && (($(wc -l <<<"$names") <= 3)) || return 1
  ! grep -qE ' (TestInteropLAN|TestDiscovery)$' <<<"$names" || return 1 # they need their namespace
  while read -r pkg test; do
    echo "== once more, alone: $pkg $test"
    if [[ -n $test ]]; then
      go test -tags "nolibopusfile interop" -count=1 -v -run "^$test\$" "$pkg" || return 1
    else
      built -test.run "^$pkg\$" || return 1
    fi
  done <<<"$names"
  sed -i 's/^\( *\)--- FAIL:/\1--- UNSTEADY:/; s/^FAIL/UNSTEADY/' "$1"
}

failed=0
printf '%s\n' with_rig with_node packages | xargs -P 3 -I{} bash -c '{} >"$scratch/{}.log" 2>&1 || echo {} >>"$scratch/failed"' || failed=1
rest >"$scratch/rest.log" 2>&1 || echo rest >>"$scratch/failed"
if [[ -e $scratch/failed ]]; then
  while read -r group; do
    again "$scratch/$group.log" >>"$scratch/again.log" 2>&1 </dev/null || failed=1
  done <"$scratch/failed"
fi
cat "$scratch"/*.log
exit $failed
