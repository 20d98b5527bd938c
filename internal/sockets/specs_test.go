package sockets

import (
	"net"
	"strings"
	"testing"

	"github.com/parley-jami/parley/internal/config"
)

func TestMediaSpecs(t *testing.T) {
	for _, tt := range []struct {
		listen, first, last string // addresses of the first and the last
		err                 string
	}{
		{listen: ":24000", first: ":24002", last: ":24257"},
		{listen: "127.0.0.1:24001", first: "127.0.0.1:24002", last: "127.0.0.1:24257"},
		{listen: "[::1]:65278", first: "[::1]:65280", last: "[::1]:65535"},
		{listen: ":65279", err: "media.listen"},
		{listen: ":0", err: "media.listen"},
		{listen: "nonsense", err: "media.listen"},
		{listen: ":x", err: "media.listen"},
	} {
		t.Run(tt.listen, func(t *testing.T) {
			c := new(config.Config)
			c.Media.Listen = tt.listen
			got, err := MediaSpecs(c)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1+2*RTPPairs {
				t.Fatalf("%d sockets", len(got))
			}
			if got[0].Addr != tt.listen || got[1].Addr != tt.first || got[len(got)-1].Addr != tt.last {
				t.Errorf("addresses %v", got)
			}
			if got[1].Name != RTP(0) || got[len(got)-1].Name != RTCP(RTPPairs-1) {
				t.Errorf("names %v", got)
			}
		})
	}
}

func TestConnectSpecsOff(t *testing.T) {
	c := new(config.Config)
	c.SIP.Listen = ":5060"
	got := ConnectSpecs(c)
	if len(got) != 2 || got[0].Name != SIPUDP || got[1].Name != SIPTCP {
		t.Fatalf("got %v", got)
	}
}

func TestPortInUseNamesAddressAndSetting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	_, err = Open([]Spec{{Name: SIPTCP, Network: "tcp", Addr: addr, Setting: "sip.listen"}})
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "sip.listen") || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("error %v", err)
	}
}
