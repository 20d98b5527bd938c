package portmap

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/parley-jami/parley/internal/sockets"
)

// Of returns what to map of a process's sockets: those with a fixed port that do not
// listen on loopback alone.
func Of(specs []sockets.Spec) []Port {
	var out []Port
	for _, s := range specs {
		host, port, err := net.SplitHostPort(s.Addr)
		n, perr := strconv.ParseUint(port, 10, 16)
		if ip, _ := netip.ParseAddr(host); err != nil || perr != nil || n == 0 || ip.IsLoopback() || host == "localhost" {
			continue
		}
		out = append(out, Port{s.Network, uint16(n), s.Name})
	}
	return out
}
