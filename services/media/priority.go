package media

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/internal/sockets"
)

// niceness puts audio before the other processes of the machine: a tick that
// waits for a compiler is late for everyone in the room. Real-time classes are not
// used: a runaway process in one takes the machine with it, and Go's runtime
// yields by the ordinary rules.
const niceness = -10

// prioritize raises the priority of all threads of the process; later ones inherit
// it. Without the right to (not root, no CAP_SYS_NICE) it is an error that the node
// can live with.
func prioritize() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("priority: %w", err)
	}
	var errs []error
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		// ESRCH: the thread ended meanwhile.
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, niceness); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("priority: %w", err))
			break
		}
	}
	if len(errs) == 0 {
		errs = append(errs, prioritizeSession())
	}
	return errors.Join(errs...)
}

// prioritizeSession does the same for the process's session, where the kernel shares the CPU
// among sessions before it does among processes (sched(7), autogroup): the niceness above
// counts within the session only. A session that is others' too is left alone.
func prioritizeSession() error {
	id, err := unix.Getsid(0)
	if err != nil || id != os.Getpid() {
		return nil
	}
	err = os.WriteFile("/proc/self/autogroup", strconv.AppendInt(nil, niceness, 10), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // there are none
		return fmt.Errorf("priority of the session: %w", err)
	}
	return nil
}

// lacks says in one line what this machine does not give to audio, and what to set;
// empty: nothing.
func lacks(priority error, receive, send int) string {
	var out []string
	if priority != nil {
		out = append(out, "no priority over other processes: give the process LimitNICE=-10 (systemd), ulimit nice=30 (containers) or CAP_SYS_NICE")
	}
	if least := min(receive, send); least < sockets.Buffer {
		out = append(out, fmt.Sprintf("UDP buffers of %d KiB, which lose a burst: set the sysctls net.core.rmem_max and net.core.wmem_max to %d", least>>10, sockets.Buffer))
	}
	return strings.Join(out, "; ")
}
