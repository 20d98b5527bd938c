package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait is how long the processes of a node whose supervisor was killed may
// take to end: they drain first.
const lockWait = 6 * time.Second

// InUseError says that a node or a worker runs on a data directory.
type InUseError struct {
	Data    string
	PID     int  // of its supervisor
	Orphans bool // which is gone, and its processes are not
}

func (e *InUseError) Error() string {
	if e.Orphans {
		return fmt.Sprintf("processes of an earlier node still use %s (its supervisor, pid %d, is gone): end them first", e.Data, e.PID)
	}
	return fmt.Sprintf("another node uses %s (pid %d): stop it, or give this one a directory of its own with --data", e.Data, e.PID)
}

// Lock takes DATA/lock for this process; it is held until every copy of the file
// is closed, so that children who inherit it keep a second node out even after
// their supervisor was killed. Held by a supervisor that lives, the error
// is an [InUseError]; held by orphans alone, Lock waits for their end.
func Lock(ctx context.Context, data string) (*os.File, error) {
	path := filepath.Join(data, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		pid := lockHolder(path)
		if pid != 0 && alive(pid) {
			f.Close()
			return nil, &InUseError{Data: data, PID: pid}
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, &InUseError{Data: data, PID: pid, Orphans: true}
		case <-time.After(20 * time.Millisecond):
		}
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func lockHolder(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
