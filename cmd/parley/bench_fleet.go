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
	"sync"
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
	procs  []*exec.Cmd
	done   sync.WaitGroup
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
	f := &fleet{app: a, self: self, dir: dir, prefix: prefix, legs: cfg.Legs}
	defer f.stop()
	for _, line := range []string{
		"link set lo up", "link add br0 type bridge", "addr add " + fleetHub + "/16 dev br0", "link set br0 up", "route add local " + fleetLegs + " dev lo",
	} {
		if err := ip(ctx, strings.Fields(line)...); err != nil {
			return nil, err
		}
	}
	node := filepath.Join(dir, "node")
	if err := f.start("node", []string{f.self, "up", "--data", node, "--bus.listen", fleetHub + ":4223"}); err != nil {
		return nil, err
	}
	err = f.await(ctx, "the node", func(ctx context.Context) bool {
		st, err := askSupervisor(ctx, node)
		return err == nil && st.Joinable
	})
	if err != nil {
		return nil, err
	}
	if err := cmd.Flags().Set("data", node); err != nil {
		return nil, err
	}
	var done func()
	if f.benchNode, done, err = a.bench(cmd, "main"); err != nil {
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

// Net is where the legs are.
func (f *fleet) Net() [2]byte { return [2]byte{10, 77} }

// Grow starts workers.
func (f *fleet) Grow(ctx context.Context, n int) error {
	for f.grown < n {
		f.grown++
		i := f.grown
		name, ns, data := fmt.Sprintf("w%d", i), fmt.Sprintf("%s%d", f.prefix, i), filepath.Join(f.dir, fmt.Sprintf("w%d", i))
		for _, line := range []string{
			"netns add " + ns,
			fmt.Sprintf("link add v%d type veth peer name eth0 netns %s", i, ns),
			fmt.Sprintf("link set v%d master br0 up", i),
			fmt.Sprintf("-n %s addr add 10.76.1.%d/16 dev eth0", ns, i),
			"-n " + ns + " link set lo up",
			"-n " + ns + " link set eth0 up",
			"-n " + ns + " route add " + fleetLegs + " via " + fleetHub,
		} {
			if err := ip(ctx, strings.Fields(line)...); err != nil {
				return err
			}
		}
		creds := filepath.Join(f.dir, name+".creds")
		if err := f.add(ctx, name, creds); err != nil {
			return err
		}
		err := f.start(name, []string{"ip", "netns", "exec", ns, f.self, "join", "--creds", creds, "--data", data, "--media.max_legs", fmt.Sprint(f.legs), "--admin.listen", ""})
		if err != nil {
			return err
		}
		err = f.await(ctx, "worker "+name, func(ctx context.Context) bool {
			l, err := bus.Call(ctx, f.s.Conn, contract.WorkerList, &contract.None{})
			return err == nil && slices.ContainsFunc(l.Workers, func(w contract.Worker) bool { return w.Worker == name && w.Alive })
		})
		if err != nil {
			return err
		}
		f.away[name] = filepath.Join(data, "run", "media.sock")
	}
	return nil
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
	out, err := os.Create(filepath.Join(f.dir, name+".log"))
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
	f.procs = append(f.procs, c)
	f.done.Go(func() { _ = c.Wait() }) // how it ended is in its log; nobody is left to ask
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
	for _, c := range slices.Backward(f.procs) {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	f.done.Wait()
}
