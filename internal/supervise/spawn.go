package supervise

import (
	"os/exec"
	"runtime"
)

// spawner forks on one thread that lives as long as the supervisor. The kernel
// sends Pdeathsig when the *thread* that forked ends (prctl(2),
// PR_SET_PDEATHSIG), and Go ends threads as it likes.
type spawner struct {
	req  chan spawnRequest
	done chan struct{}
}

type spawnRequest struct {
	cmd *exec.Cmd
	err chan error
}

func newSpawner() *spawner {
	s := &spawner{req: make(chan spawnRequest), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for r := range s.req {
			r.err <- r.cmd.Start()
		}
	}()
	return s
}

// start is cmd.Start on the spawner's thread. It must not be called after close.
func (s *spawner) start(cmd *exec.Cmd) error {
	r := spawnRequest{cmd, make(chan error, 1)}
	s.req <- r
	return <-r.err
}

func (s *spawner) close() {
	close(s.req)
	<-s.done
}
