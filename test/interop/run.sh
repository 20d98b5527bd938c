#!/usr/bin/env bash
# Installs the real peers and runs the interop tests against bin/parley.
# Needs root for the packages (or has them already), and Go. "install" does that alone; other arguments go to `go test`.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/again.sh

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
  [[ $dir/node_modules/.package-lock.json -nt $dir/package-lock.json ]] || # npm writes it last
    (cd "$dir" && npm ci --no-audit --no-fund --silent)
done
(cd sdk/js && npm test)
for tool in /usr/libexec/jamid pactl gcc; do # of the rigs, which have no network to get them by
  command -v $tool >/dev/null && continue
  [[ $(id -u) = 0 ]] && test/interop/rig/rig.sh install
  break
done
[[ ${1:-} = install ]] && exit
make build
if (($#)); then
  exec go test -tags "nolibopusfile interop" -count=1 -timeout 20m -v "$@" ./test/interop
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
go test -tags "nolibopusfile interop" -vet=off -c -o "$scratch/interop.test" ./test/interop

# Tests that measure neither gaps in sound nor time are run beside one another, four groups at a time: three that
# take about as long, and what needs root, Node.js or OpenDHT's nodes beside its own package, which waits for values to
# expire, with a fourth after it. All others have the machine to themselves.
group1='TestNATs|TestPrivateKeysStayInIdentity|TestBenchScale|TestMalformedSignalling|TestNodeCallsAllDevices'
group1+='|TestRosterAsOfAStockHost|TestConversationWithStock|TestWorkerTakesCalls'
group1+='|TestBrowserWithoutUDP|TestBotsOutliveTheNode|TestStockDaemonUsesOurNameServer|TestStockCallsByOurRelay'
group1+='|TestNodeCallsPhones|TestStorageKey|TestWorkerIsRevoked|TestOperatorsPageWithManyAccounts|TestRefusedStarts'
group2='TestMuteOutlivesTheSeat|TestLargeFilesWithStock|TestNodeCallsStock|TestAccountsOnTheOperatorsPage'
group2+='|TestStockDaemonHasManagedAccount|TestDamagedState|TestBenchChaos|TestBenchSoak|TestStockRendezvous'
group2+='|TestTextsOverAConnection|TestFilesBetweenNodes|TestRequestsOverOpenDHT|TestOrganisationOnTheOperatorsPage'
group2+='|TestDevicesAreShutOut|TestBrowserWithTLSAlone|TestSim|TestFullDisk|TestRefusedWorkers'
group3='TestStockBehindOurProxy|TestArchivesAndStockDaemons|TestRoomOverTwoWorkers|TestDevicesMeetOverOpenDHT'
group3+='|TestExamples|TestOurDeviceInStockDaemons|TestStockFetchesAFile|TestStockInCall|TestNodesBehindNATs'
group3+='|TestMessagesOverOpenDHT|TestStockConnects|TestHowParticipantsAreConnected|TestNodeStartsAConversation'
group3+='|TestBrowserWithUDPNeedsNoRelay|TestAnotherAccountsRooms|TestStartOnAnExistingAccount|TestPhoneWithPIN'
group4='TestCallsLast|TestAnotherOperatorsNATS|TestBenchChaosMachines|TestBenchKeys|TestNodesWithoutTCP|TestNodeIsGone|TestGroupWithStock'
group4+='|TestStockCallsOverOurNodes'
beside="$group1|$group2|$group3|$group4"
export scratch group1 group2 group3 group4 beside
if gone=$(tr '|' '\n' <<<"$beside" | grep -vxFf <("$scratch/interop.test" -test.list .)); then
  echo "interop: run.sh names tests that are not there:" $gone >&2
  exit 1
fi

built() ( # flags of a test binary
  cd test/interop && "$scratch/interop.test" -test.timeout 20m -test.v "$@"
)
# Each group has a network and namespaces of its own, with a rig of stock daemons at a time, where there is root.
apart() { # group
  local tests=${!1}
  if [[ $(id -u) != 0 ]]; then
    built -test.run "^($tests)\$"
    return
  fi
  cd test/interop
  PARLEY_RIG_LOCK=$scratch/$1.lock unshare --net --mount --propagation private sh -c 'mkdir -p /run/netns; mount -t tmpfs netns /run/netns; ip link set lo up
    ip link add lan type veth peer name wan; ip link set lan up; ip link set wan up; ip addr add 192.0.2.1/24 dev lan; ip route add default dev lan
    exec "$0" -test.timeout 20m -test.v -test.run "$1"' "$scratch/interop.test" "^($tests)\$"
}
group1() { apart group1; }
group2() { apart group2; }
group3() { apart group3; }
group4() { apart group4; }
packages() {
  local failed=0 first
  # These work where the next ones wait.
  go test -tags "nolibopusfile interop" -count=1 -v -run '^(TestFullDisk|TestDiskThatRefuses|TestModules|TestReader|TestSlapd.*)$' \
    ./internal/qr ./services/names ./services/jams/... ./services/identity/account ./web >"$scratch/first" 2>&1 &
  first=$!
  go test -tags "nolibopusfile interop" -p 3 -count=1 -v -run '^(TestInterop|TestInteropNetworks|TestInteropConformance|TestSameAnswersAsStock|TestValuesAcrossProxies|TestExpiryAcrossProxies|TestPython)$' \
    ./services/dht/opendht ./services/dht/proxyclient ./services/dht/proxy || failed=1
  wait "$first" || failed=1
  cat "$scratch/first"
  [[ $(id -u) = 0 ]] || return $failed
  unshare -n sh -c 'ip link set lo up; ip link add lan type veth peer name wan; ip link set lan up; ip link set wan up; ip addr add 192.0.2.1/24 dev lan
    ip addr add 2001:db8::1/64 dev lan nodad; ip route add default dev lan; ip -6 route add default dev lan; sleep 2 # the link comes up
    go test -tags "nolibopusfile interop" -count=1 -v -run "^TestInteropLAN$" ./services/dht/opendht' || failed=1
  unshare -n sh -c 'ip link set lo up; ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up multicast on; ip addr add 192.168.77.1/24 dev d0
    ip route add default via 192.168.77.2; PARLEY_TEST_IGD=192.168.77.1 go test -tags nolibopusfile -count=1 -v -run "^TestDiscovery$" ./internal/portmap' || failed=1
  return $failed
}
export -f built apart group1 group2 group3 group4 packages

rest() { built -test.skip "^($beside)\$"; }
export -f rest

alone() { # test, package
  if [[ -z $2 ]]; then
    built -test.run "^$1\$"
  elif [[ $1 = TestInteropLAN || $1 = TestDiscovery ]]; then
    return 1 # they need their namespace
  else
    go test -tags "nolibopusfile interop" -count=1 -v -run "^$1\$" "$2"
  fi
}

failed=0
printf '%s\n' group1 group2 group3 packages group4 | xargs -P 4 -I{} bash -c '{} >"$scratch/{}.log" 2>&1 || echo {} >>"$scratch/failed"' || failed=1
rest >"$scratch/rest.log" 2>&1 || echo rest >>"$scratch/failed"
if [[ -e $scratch/failed ]]; then
  while read -r group; do
    again "$scratch/$group.log" alone >>"$scratch/again.log" 2>&1 || failed=1
  done <"$scratch/failed"
fi
cat "$scratch"/*.log
exit $failed
