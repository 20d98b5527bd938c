package sockets

import (
	"fmt"
	"net"
	"strconv"

	"github.com/parley-jami/parley/internal/config"
)

// Names of the sockets that `parley up` holds. A child asks [UDP] and [TCP] for
// them by these names.
const (
	Media0  = "media0" // UDP: ICE, DTLS and SRTP of every WebRTC leg
	HTTP    = "http"
	HTTPS   = "https"
	SIPUDP  = "sip-udp"
	SIPTCP  = "sip-tcp"
	SIPTLS  = "sip-tls"
	Devices = "devices" // TCP: connections to Jami devices

	DevicesUDP = "devices-udp" // the same by UDP, to other nodes
	pairs      = (config.MediaPorts - 2) / 2
	maxPort    = 1<<16 - 1
)

// RTPPairs is how many pairs of RTP and RTCP ports there are.
const RTPPairs = pairs

// RTP returns the name of the i-th RTP socket, "rtp0" to "rtp127".
func RTP(i int) string { return "rtp" + strconv.Itoa(i) }

// RTCP returns the name of the i-th RTCP socket, "rtcp0" to "rtcp127".
func RTCP(i int) string { return "rtcp" + strconv.Itoa(i) }

// MediaSpecs returns the sockets of the media process: [Media0] on the port P of
// media.listen, then pairs on the even and odd ports that follow (RFC 3550 §11:
// RTP on an even port, RTCP on the next), in the order media0, rtp0, rtcp0,
// rtp1, …; the last port is at most P+[config.MediaPorts]-1.
func MediaSpecs(c *config.Config) ([]Spec, error) {
	host, port, err := split(c.Media.Listen)
	if err != nil {
		return nil, fmt.Errorf("media.listen: %w", err)
	}
	if port < 1 || port+config.MediaPorts-1 > maxPort {
		return nil, fmt.Errorf("media.listen: port %d: the node needs this and the next %d, so 1 to %d",
			port, config.MediaPorts-1, maxPort-config.MediaPorts+1)
	}
	at := func(p int) string { return net.JoinHostPort(host, strconv.Itoa(p)) }
	out := []Spec{{Name: Media0, Network: "udp", Addr: at(port), Setting: "media.listen"}}
	even := (port + 2) &^ 1
	for i := range RTPPairs {
		out = append(out,
			Spec{Name: RTP(i), Network: "udp", Addr: at(even + 2*i), Setting: "media.listen"},
			Spec{Name: RTCP(i), Network: "udp", Addr: at(even + 2*i + 1), Setting: "media.listen"})
	}
	return out, nil
}

// ConnectSpecs returns the sockets of the connect process. A listener whose
// address is empty is off and not in the list.
func ConnectSpecs(c *config.Config) []Spec {
	all := []Spec{
		{Name: HTTP, Network: "tcp", Addr: c.HTTP.Listen, Setting: "http.listen"},
		{Name: HTTPS, Network: "tcp", Addr: c.HTTP.TLSListen, Setting: "http.tls_listen"},
		{Name: SIPUDP, Network: "udp", Addr: c.SIP.Listen, Setting: "sip.listen"},
		{Name: SIPTCP, Network: "tcp", Addr: c.SIP.Listen, Setting: "sip.listen"},
		{Name: SIPTLS, Network: "tcp", Addr: c.SIP.TLSListen, Setting: "sip.tls_listen"},
	}
	if c.Connect.Name == "" { // devices connect to the node itself
		all = append(all, Spec{Name: Devices, Network: "tcp", Addr: c.Jami.Listen, Setting: "jami.listen"})
		if c.Jami.UDP == "on" {
			all = append(all, Spec{Name: DevicesUDP, Network: "udp", Addr: c.Jami.Listen, Setting: "jami.listen"})
		}
	}
	out := all[:0]
	for _, s := range all {
		if s.Addr != "" {
			out = append(out, s)
		}
	}
	return out
}

// ProbeSpecs returns what other processes open themselves. Nobody holds these
// for them, but a port that is taken is found before anything is started.
func ProbeSpecs(c *config.Config) []Spec {
	var out []Spec
	if c.Bus.URL == "" {
		out = append(out, Spec{Name: "bus", Network: "tcp", Addr: c.Bus.Listen, Setting: "bus.listen"})
	}
	if c.DHT.Overlay == "opendht" || c.DHT.Overlay == "both" {
		out = append(out, Spec{Name: "dht-opendht", Network: "udp", Addr: c.DHT.OpenDHTListen, Setting: "dht.opendht_listen"})
	}
	if (c.DHT.Overlay == "libp2p" || c.DHT.Overlay == "both") && c.DHT.Listen != "" {
		out = append(out,
			Spec{Name: "dht-tcp", Network: "tcp", Addr: c.DHT.Listen, Setting: "dht.listen"},
			Spec{Name: "dht-udp", Network: "udp", Addr: c.DHT.Listen, Setting: "dht.listen"})
	}
	return out
}

func split(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: a number from 0 to %d", p, maxPort)
	}
	return host, int(n), nil
}
