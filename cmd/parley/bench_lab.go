package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/bench"
)

// Networks of bench chaos on several machines: that between the machines, with the node at fleetHub, and
// that by which the legs reach them, with the node at labLegs. The other machines have 1.1 and following in each.
const (
	labLegs     = "10.78.0.1"
	labMachines = 2
	labBus      = ":4223"
	labRoutes   = ":4226"
	labAdmin    = ":9090"
)

// lab is a node with a bus of three servers, of which two are on machines of their own, with a worker each.
// A third of the legs is near to each worker, the node's among them.
type lab struct {
	*ruin
	f    *fleet
	node string // its directory
	web  *http.Client
	turn int // of the machine that is cut off
}

// lab starts one, in the namespace of the bridges; done ends it.
func (a *app) lab(cmd *cobra.Command, prefix string) (l *lab, done func(), err error) {
	ctx := cmd.Context()
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "parley-chaos-")
	if err != nil {
		return nil, nil, err
	}
	l = &lab{f: newFleet(a, self, dir, prefix), node: filepath.Join(dir, "node"), web: &http.Client{Timeout: metricsWait}}
	closing := []func(){func() { os.RemoveAll(dir) }, l.f.stop, l.web.CloseIdleConnections}
	done = func() {
		for _, f := range slices.Backward(closing) {
			f()
		}
	}
	defer func() {
		if err != nil {
			done()
		}
	}()
	err = ips(ctx, "link set lo up",
		"link add br0 type bridge", "addr add "+fleetHub+"/16 dev br0", "link set br0 up",
		"link add br1 type bridge", "addr add "+labLegs+"/16 dev br1", "link set br1 up",
		"route add local "+fleetLegs+" dev lo src "+labLegs)
	if err != nil {
		return nil, nil, err
	}
	for i := 1; i <= labMachines; i++ {
		ns := l.f.namespace(i)
		err := ips(ctx, "netns add "+ns,
			fmt.Sprintf("link add v%d type veth peer name eth0 netns %s", i, ns), fmt.Sprintf("link set v%d master br0 up", i),
			fmt.Sprintf("-n %s addr add %s/16 dev eth0", ns, machine(i)),
			fmt.Sprintf("link add u%d type veth peer name eth1 netns %s", i, ns), fmt.Sprintf("link set u%d master br1 up", i),
			fmt.Sprintf("-n %s addr add 10.78.1.%d/16 dev eth1", ns, i),
			"-n "+ns+" link set lo up", "-n "+ns+" link set eth0 up", "-n "+ns+" link set eth1 up",
			"-n "+ns+" route add "+fleetLegs+" via "+labLegs)
		if err != nil {
			return nil, nil, err
		}
	}
	public := "nats://" + fleetHub + labBus
	for i := 1; i <= labMachines; i++ {
		public += ",nats://" + machine(i) + labBus
	}
	argv := append([]string{l.f.self, "up", "--data", l.node, "--bus.public_url", public, "--media.near", near(0)}, l.clustered(0)...)
	if err := l.f.start("node", argv); err != nil {
		return nil, nil, err
	}
	for i := 1; i <= labMachines; i++ {
		if err := l.member(ctx, i); err != nil {
			return nil, nil, err
		}
	}
	closeNode, err := l.f.open(cmd, l.node)
	if err != nil {
		return nil, nil, err
	}
	closing = append(closing, closeNode)
	l.ruin = &ruin{l.f.benchNode}
	for i := 1; i <= labMachines; i++ {
		creds := filepath.Join(dir, worker(i)+".creds")
		if err := l.f.add(ctx, worker(i), creds); err != nil {
			return nil, nil, err
		}
		err := l.f.start(worker(i), []string{"ip", "netns", "exec", l.f.namespace(i), l.f.self, "join", "--creds", creds,
			"--data", filepath.Join(dir, worker(i)), "--media.near", near(i), "--admin.listen", ""})
		if err != nil {
			return nil, nil, err
		}
	}
	return l, done, l.whole(ctx)
}

func busServer(i int) string { return fmt.Sprintf("s%d", i) }

// near is the network of a group of legs.
func near(i int) string { return fmt.Sprintf("10.77.%d.0/18", 64*i) }

// clustered are the settings of a server of the bus.
func (l *lab) clustered(i int) []string {
	routes := ""
	for k := range labMachines + 1 {
		if k != i {
			routes += "," + machine(k) + labRoutes
		}
	}
	return []string{"--bus.listen", machine(i) + labBus, "--bus.cluster_server", busServer(i), "--bus.cluster_listen", machine(i) + labRoutes, "--bus.cluster_routes", routes[1:]}
}

// member starts a further server of the bus, with the keys that the node has made.
func (l *lab) member(ctx context.Context, i int) error {
	data := filepath.Join(l.f.dir, busServer(i))
	keys := filepath.Join(data, "bus", "keys", "keys.json")
	if _, err := os.Stat(keys); errors.Is(err, fs.ErrNotExist) {
		var raw []byte
		err := l.f.await(ctx, "the node's bus", func(context.Context) bool {
			raw, err = os.ReadFile(filepath.Join(l.node, "bus", "keys", "keys.json"))
			return err == nil
		})
		if err == nil {
			err = os.MkdirAll(filepath.Dir(keys), 0o700)
		}
		if err == nil {
			err = os.WriteFile(keys, raw, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return l.f.start(busServer(i), append([]string{"ip", "netns", "exec", l.f.namespace(i), l.f.self, "run", "bus", "--data", data,
		"--bus.member=true", "--admin.listen", machine(i) + labAdmin}, l.clustered(i)...))
}

// told are the metrics of a server of the bus; the node's are labelled.
func (l *lab) told(ctx context.Context, i int) (m measures, label string, err error) {
	if i == 0 {
		m, err = metrics(ctx, l.up)
		return m, "bus", err
	}
	m, err = metricsAt(ctx, l.web, "http://"+machine(i)+labAdmin+"/metrics")
	return m, "", err
}

// whole waits until all servers of the bus have all streams, each of which one of them leads, and the node hears
// of all workers.
func (l *lab) whole(ctx context.Context) error {
	return l.f.await(ctx, "all machines together", func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, localWait)
		defer cancel()
		streams := map[string]bool{}
		for i := range labMachines + 1 {
			m, label, err := l.told(ctx, i)
			if err != nil {
				return false
			}
			for _, stream := range []string{contract.StreamRoomEvents, "KV_" + contract.BucketRooms, "KV_" + contract.BucketLeases} {
				if m.value("parley_bus_current", label, "stream", stream) != 1 {
					return false
				}
				streams[stream] = streams[stream] || m.value("parley_bus_leads", label, "stream", stream) == 1
			}
		}
		for _, led := range streams {
			if !led {
				return false
			}
		}
		for i := 1; i <= labMachines; i++ {
			if !l.f.alive(ctx, worker(i)) {
				return false
			}
		}
		return l.f.alive(ctx, l.home)
	})
}

// leader is the server of the bus that leads the stream of the leases, with which conference has the rooms.
func (l *lab) leader(ctx context.Context) (int, error) {
	found := -1
	err := l.f.await(ctx, "a leader of the bus", func(ctx context.Context) bool {
		for i := range labMachines + 1 {
			if m, label, err := l.told(ctx, i); err == nil && m.value("parley_bus_leads", label, "stream", "KV_"+contract.BucketLeases) == 1 {
				found = i
				return true
			}
		}
		return false
	})
	return found, err
}

// Kill ends a process of the node's, or the bus's leader wherever that is.
func (l *lab) Kill(ctx context.Context, process string) error {
	if process != bench.Leader && process != "bus" {
		return l.ruin.Kill(ctx, process)
	}
	i := 0
	if process == bench.Leader {
		var err error
		if i, err = l.leader(ctx); err != nil {
			return err
		}
	}
	if i == 0 {
		if err := l.ruin.Kill(ctx, "bus"); err != nil {
			return err
		}
		return l.whole(ctx)
	}
	c := l.f.procs[busServer(i)]
	if err := ours(c.cmd.Process.Pid, "bus"); err != nil {
		return err
	}
	if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("server %d of the bus: %w", i, err)
	}
	<-c.ended
	if err := l.member(ctx, i); err != nil {
		return err
	}
	return l.whole(ctx)
}

// Net is where the legs are.
func (l *lab) Net() [2]byte { return l.f.Net() }

// Groups is how many workers have legs near to them.
func (l *lab) Groups() int { return labMachines + 1 }

// healTime is what is left of a run that was interrupted for putting links up again.
const healTime = 5 * time.Second

// Cut takes the links of one machine down, another one each time.
func (l *lab) Cut(ctx context.Context, what string) (func(context.Context) error, error) {
	i := 1 + l.turn%labMachines
	l.turn++
	links := []string{fmt.Sprintf("v%d", i)}
	if what == bench.Machine {
		links = append(links, fmt.Sprintf("u%d", i))
	}
	set := func(ctx context.Context, state string) error {
		var errs []error
		for _, link := range links {
			errs = append(errs, ip(ctx, "link", "set", link, state))
		}
		return errors.Join(errs...)
	}
	if err := set(ctx, "down"); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		up, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTime)
		defer cancel()
		if err := set(up, "up"); err != nil {
			return err
		}
		return l.whole(ctx)
	}, nil
}
