package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/bench"
)

// Addresses of bench scale: the bridge with the node, the workers 10.76.1.1 and following, and the
// legs, which are all local where the bridge is.
const (
	fleetHub  = "10.76.0.1"
	fleetLegs = "10.77.0.0/16"
)

// fleetWait bounds the start of a node or of a worker on a busy machine.
const fleetWait = 2 * time.Minute

// fleet is a node and its workers, each in a namespace.
type fleet struct {
	*benchNode
	app    *app
	self   string
	dir    string
	prefix string // of the namespaces
	legs   int    // of each worker
	grown  int
	procs  map[string]*child
	order  []*child
}

// child is a process of a fleet's.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{} // is closed then
}

func newFleet(a *app, self, dir, prefix string) *fleet {
	return &fleet{app: a, self: self, dir: dir, prefix: prefix, procs: map[string]*child{}}
}

// scale is bench scale in the namespace of the bridge.
func (a *app) scale(cmd *cobra.Command, cfg bench.ScaleConfig, prefix string) (*bench.ScaleReport, error) {
	ctx := cmd.Context()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "parley-scale-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	f := newFleet(a, self, dir, prefix)
	f.legs = cfg.Legs
	defer f.stop()
	err = ips(ctx, "link set lo up", "link add br0 type bridge", "addr add "+fleetHub+"/16 dev br0", "link set br0 up", "route add local "+fleetLegs+" dev lo")
	if err != nil {
		return nil, err
	}
	node := filepath.Join(dir, "node")
	if err := f.start("node", []string{f.self, "up", "--data", node, "--bus.listen", fleetHub + ":4223"}); err != nil {
		return nil, err
	}
	done, err := f.open(cmd, node)
	if err != nil {
		return nil, err
	}
	defer done()
	f.away = map[string]string{}
	// The node's own worker is beside the generator, not on a network of its own.
	if _, err := bus.Call(ctx, f.s.Conn, contract.WorkerDrain, &contract.Drain{}, f.home); err != nil {
		return nil, err
	}
	return bench.RunScale(ctx, cfg, f)
}

// open waits until the node of a directory can be joined, and opens it; done gives it back.
func (f *fleet) open(cmd *cobra.Command, node string) (done func(), err error) {
	err = f.await(cmd.Context(), "the node", func(ctx context.Context) bool {
		st, err := askSupervisor(ctx, node)
		return err == nil && st.Joinable
	})
	if err != nil {
		return nil, err
	}
	if err := cmd.Flags().Set("data", node); err != nil {
		return nil, err
	}
	f.benchNode, done, err = f.app.bench(cmd, "main")
	return done, err
}

// Net is where the legs are.
func (f *fleet) Net() [2]byte { return [2]byte{10, 77} }

// Grow starts workers.
func (f *fleet) Grow(ctx context.Context, n int) error {
	for f.grown < n {
		f.grown++
		i := f.grown
		name, ns := worker(i), f.namespace(i)
		data := filepath.Join(f.dir, name)
		err := ips(ctx,
			"netns add "+ns,
			fmt.Sprintf("link add v%d type veth peer name eth0 netns %s", i, ns),
			fmt.Sprintf("link set v%d master br0 up", i),
			fmt.Sprintf("-n %s addr add %s/16 dev eth0", ns, machine(i)),
			"-n "+ns+" link set lo up",
			"-n "+ns+" link set eth0 up",
			"-n "+ns+" route add "+fleetLegs+" via "+fleetHub)
		if err != nil {
			return err
		}
		creds := filepath.Join(f.dir, name+".creds")
		if err := f.add(ctx, name, creds); err != nil {
			return err
		}
		err = f.start(name, []string{"ip", "netns", "exec", ns, f.self, "join", "--creds", creds, "--data", data, "--media.max_legs", fmt.Sprint(f.legs), "--admin.listen", ""})
		if err != nil {
			return err
		}
		if err = f.await(ctx, "worker "+name, func(ctx context.Context) bool { return f.alive(ctx, name) }); err != nil {
			return err
		}
		f.away[name] = filepath.Join(data, "run", "media.sock")
	}
	return nil
}

func (f *fleet) namespace(i int) string { return fmt.Sprintf("%s%d", f.prefix, i) }

// machine is the address of a machine; 0: the node's.
func machine(i int) string {
	if i == 0 {
		return fleetHub
	}
	return fmt.Sprintf("10.76.1.%d", i)
}

func worker(i int) string { return fmt.Sprintf("w%d", i) }

// alive reports whether the node hears of a worker.
func (f *fleet) alive(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	l, err := bus.Call(ctx, f.s.Conn, contract.WorkerList, &contract.None{})
	return err == nil && slices.ContainsFunc(l.Workers, func(w contract.Worker) bool { return w.Worker == name && w.Alive })
}

// add writes credentials for a worker to a file.
func (f *fleet) add(ctx context.Context, name, file string) error {
	o, err := f.app.openCreds(file)
	if err != nil {
		return err
	}
	s := *f.s
	s.key = nuid.Next() // each is a command of its own
	_, err = addWorker(ctx, &s, contract.WorkerAdd{Name: name}, nil, nil, o)
	return errors.Join(err, o.close())
}

// Join asks again while all workers seem to be full: the node knows how many legs they have by their
// beats, and counts one that joins meanwhile twice.
func (f *fleet) Join(ctx context.Context, w bench.Wish) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, benchJoinWait)
	defer cancel()
	for {
		sdp, err := f.benchNode.Join(ctx, w)
		if !errors.Is(err, contract.ErrBusy) {
			return sdp, err
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(retryStep):
		}
	}
}

// start runs a process of the fleet; what it says goes to a file.
func (f *fleet) start(name string, argv []string) error {
	out, err := os.OpenFile(filepath.Join(f.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	c := exec.Command(argv[0], argv[1:]...)
	// Settings of this shell are of another node.
	c.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PARLEY_") })
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p := &child{c, make(chan struct{})}
	f.procs[name] = p
	f.order = append(f.order, p)
	go func() { // stop waits for it
		_ = c.Wait() // how it ended is in its log; nobody is left to ask
		close(p.ended)
	}()
	return nil
}

// await waits for what fn asks; a fleet that does not come up shows the end of its logs.
func (f *fleet) await(ctx context.Context, what string, fn func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, fleetWait)
	defer cancel()
	tick := time.NewTicker(retryStep)
	defer tick.Stop()
	for !fn(ctx) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not come up: %w; it said:\n%s", what, ctx.Err(), f.said())
		case <-tick.C:
		}
	}
	return nil
}

// saidMost is how much of each log is shown, in bytes.
const saidMost = 2000

func (f *fleet) said() string {
	var b strings.Builder
	logs, _ := filepath.Glob(filepath.Join(f.dir, "*.log")) // the pattern is a good one
	for _, name := range logs {
		raw, err := os.ReadFile(name)
		if err != nil {
			raw = []byte(err.Error())
		}
		fmt.Fprintf(&b, "%s: %s\n", filepath.Base(name), raw[max(0, len(raw)-saidMost):])
	}
	return b.String()
}

// stop ends the workers, then the node, and waits for them.
func (f *fleet) stop() {
	for _, p := range slices.Backward(f.order) {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	for _, p := range f.order {
		<-p.ended
	}
}
