package media

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
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
	return errors.Join(errs...)
}
