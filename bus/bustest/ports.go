package bustest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"testing"

	"github.com/parley-jami/parley/internal/config"
)

// PortBlock is how many ports Ports reserves.
const PortBlock = 32

// Both kinds of blocks lie below the ports that the kernel hands out.
const (
	firstPort, blocks           = 20000, 390
	firstMediaPort, mediaBlocks = 10000, 38
	mediaBlock                  = config.MediaPorts + 2
)

// Ports reserves a block of ports until the test ends and returns its first
// one. free says whether nobody else on this machine uses them. Tests of other
// packages, which run at the same time, get other blocks: the name of an
// abstract socket is held for each.
func Ports(t testing.TB, free func(base int) bool) int {
	t.Helper()
	return reserve(t, firstPort, PortBlock, blocks, free)
}

// MediaPorts is like [Ports], for the [config.MediaPorts] that a media process takes.
func MediaPorts(t testing.TB, free func(base int) bool) int {
	t.Helper()
	return reserve(t, firstMediaPort, mediaBlock, mediaBlocks, free)
}

func reserve(t testing.TB, first, size, count int, free func(base int) bool) int {
	t.Helper()
	for range 200 {
		base := first + size*rand.IntN(count)
		l, err := net.Listen("unix", "@parleytest-ports-"+strconv.Itoa(base))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if free(base) {
			t.Cleanup(func() { l.Close() })
			return base
		}
		l.Close()
	}
	t.Fatal("no block of free ports")
	return 0
}
