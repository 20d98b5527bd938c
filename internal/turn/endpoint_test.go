package turn

import "testing"

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url, addr string
		by        Transport
	}{
		{"turn:relay.example.org", "relay.example.org:3478", UDP},
		{"turn:relay.example.org:3479?transport=udp", "relay.example.org:3479", UDP},
		{"turn:192.0.2.1?transport=tcp", "192.0.2.1:3478", TCP},
		{"turns:relay.example.org", "relay.example.org:5349", TLS},
		{"turns:relay.example.org:443?transport=tcp", "relay.example.org:443", TLS},
		{"turn:[2001:db8::1]", "[2001:db8::1]:3478", UDP},
		{"turn:[2001:db8::1]:5000", "[2001:db8::1]:5000", UDP},
		{url: ""}, {url: "stun:a"}, {url: "turn:"}, {url: "turn::3478"}, {url: "turn:a:0"}, {url: "turn:a:70000"}, {url: "turn:a:b"},
		{url: "turn:2001:db8::1"}, {url: "turn:a?transport=sctp"}, {url: "turns:a?transport=udp"}, {url: "turn:a?x"}, {url: "turn:u@a"},
	} {
		e, err := ParseURL(c.url)
		if (err == nil) != (c.addr != "") || err == nil && (e.Addr() != c.addr || e.Transport != c.by) {
			t.Errorf("%q: %+v, %v", c.url, e, err)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"turn:a", "turns:a:443?transport=tcp", "turn:[::1]:1?transport=udp", "turn:[", "turn:]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := ParseURL(s); err == nil && (e.Host == "" || e.Port == 0) {
			t.Fatalf("%q: %+v", s, e)
		}
	})
}
