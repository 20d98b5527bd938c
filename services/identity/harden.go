package identity

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps the memory of this process, which has private keys, from others: it leaves
// no core dump, and a process of the same user can neither trace it nor read its memory
// (PR_SET_DUMPABLE, prctl(2)).
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("memory of identity is not kept from other processes: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("core dumps of identity are not forbidden: %w", err)
	}
	return nil
}
