package supervise

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/sockets"
)

// Spec describes one child. It is fixed.
type Spec struct {
	Name    string
	Wave    int          // when it is stopped, 0 to 3
	Needed  bool         // part of "joinable"
	Health  string       // Unix socket on which it answers /readyz and /metrics
	Sockets *sockets.Set // held for it; may be nil
}

// waitDelay is how long a dead child's pipe is read when something else still
// holds its other end.
const waitDelay = 500 * time.Millisecond

// child is one process and its successors.
type child struct {
	// Fixed.
	Spec
	s      *Supervisor
	log    *zap.Logger
	client *http.Client  // over the Unix socket
	stop   chan struct{} // closed: do not start again
	ended  chan struct{} // closed when the loop has ended

	// Atomic.
	ready    atomic.Bool
	restarts atomic.Int64

	// Under mu.
	mu       sync.Mutex
	stopping bool
	proc     *os.Process // nil while down
	since    time.Time
}

// run starts the process again and again until stopping.
func (c *child) run() {
	defer close(c.ended)
	var b backoff
	for first := true; ; first = false {
		if !first {
			c.restarts.Add(1)
		}
		began := time.Now()
		err, stopped := c.once()
		c.ready.Store(false)
		up := time.Since(began)
		if stopped || c.isStopping() {
			if err != nil {
				c.log.Warn("process did not end cleanly", zap.Error(err))
			}
			return
		}
		wait := b.next(up)
		c.log.Error("process ended; it is started again", zap.Error(exitReason(err)), zap.Duration("was_up", up), zap.Duration("in", wait))
		select {
		case <-c.stop:
			return
		case <-time.After(wait):
		}
	}
}

// once starts the process and waits for its end; stopped means that it was not
// started because of stopping.
func (c *child) once() (err error, stopped bool) {
	out := &lineWriter{out: c.s.o.Out}
	cmd := exec.Command(c.s.o.Path, c.s.o.Args(c.Name)...)
	cmd.Args[0] = "parley"
	files, env, started, err := c.Sockets.Files()
	if err != nil {
		return err, false
	}
	defer started()
	cmd.ExtraFiles = append(append([]*os.File{}, files...), c.s.o.Inherit...)
	cmd.Env = append(slices.Concat(c.s.o.Env, c.s.o.EnvOf[c.Name]), env)
	cmd.Stdout, cmd.Stderr = out, out // the same: one pipe, lines in order
	cmd.WaitDelay = waitDelay
	// A session of its own: Ctrl-C reaches the supervisor alone, and the scheduler, which shares
	// the CPU among sessions first (sched(7), autogroup), takes its priority for what it is.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setsid: true}

	c.mu.Lock()
	if c.stopping {
		c.mu.Unlock()
		return nil, true
	}
	if err := c.s.spawn.start(cmd); err != nil {
		c.mu.Unlock()
		return err, false
	}
	c.proc, c.since = cmd.Process, time.Now()
	c.mu.Unlock()
	started()
	c.log.Debug("process started", zap.Int("pid", cmd.Process.Pid))

	err = cmd.Wait()
	out.flush()
	c.mu.Lock()
	c.proc = nil
	c.mu.Unlock()
	return err, false
}

func (c *child) isStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// signal stops the restarting and signals the process, if there is one.
func (c *child) signal(sig os.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopping {
		c.stopping = true
		close(c.stop)
	}
	if c.proc == nil {
		return
	}
	if err := c.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.log.Warn("signal not sent", zap.Stringer("signal", sig.(syscall.Signal)), zap.Error(err))
	}
}

// current returns the pid, 0 while down, and since when it runs.
func (c *child) current() (pid int, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return 0, time.Time{}
	}
	return c.proc.Pid, c.since
}

// errExitZero stands for the end of a child that nobody asked to end.
var errExitZero = errors.New("exit status 0 without being asked to stop")

func exitReason(err error) error {
	if err == nil {
		return errExitZero
	}
	return err
}
