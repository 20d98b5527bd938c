package media

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/internal/sockets"
)

func TestWhatTheMachineLacksIsSaidInOneLine(t *testing.T) {
	for _, c := range []struct {
		priority      error
		receive, send int
		words         []string
	}{
		{nil, sockets.Buffer, sockets.Buffer, nil},
		{unix.EPERM, sockets.Buffer, sockets.Buffer, []string{"LimitNICE", "CAP_SYS_NICE"}},
		{nil, 208 << 10, sockets.Buffer, []string{"208 KiB", "net.core.rmem_max", "net.core.wmem_max"}},
		{unix.EACCES, sockets.Buffer, 100 << 10, []string{"LimitNICE", "100 KiB"}},
	} {
		got := lacks(c.priority, c.receive, c.send)
		if (got == "") != (c.words == nil) {
			t.Errorf("%+v: %q", c, got)
		}
		for _, w := range c.words {
			if !strings.Contains(got, w) {
				t.Errorf("%+v: %q", c, got)
			}
		}
	}
}

func TestBuffersAreWhatWasSet(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if receive, send, err := sockets.Buffers(c); err != nil || receive != 64<<10 || send == 0 {
		t.Errorf("%d, %d, %v", receive, send, err)
	}
}
