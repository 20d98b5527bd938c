package proxyurl

import (
	"net/url"
	"testing"
)

func TestParse(t *testing.T) {
	for _, x := range []struct{ in, want string }{ // want "": refused
		{"http://proxy.example", "http://proxy.example:80"},
		{"https://proxy.example/", "https://proxy.example:443"},
		{"proxy.example", "https://proxy.example:443"},
		{"proxy.example:8443", "https://proxy.example:8443"},
		{"http://192.0.2.1:8080/dht/", "http://192.0.2.1:8080/dht"},
		{"http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080"},
		{"http://[2001:db8::1]", "http://[2001:db8::1]:80"},
		{"http://[2001:db8::1]:[90-90]", "http://[2001:db8::1]:90"},
		{"[::1]:8443", "https://[::1]:8443"},
		{"http://proxy.example:[80-80]/x", "http://proxy.example:80/x"},
		{"", ""},
		{"http://", ""},
		{"ftp://proxy.example", ""},
		{"http://user@proxy.example", ""},
		{"http://proxy.example/?q", ""},
		{"http://proxy.example:0", ""},
		{"http://proxy.example:70000", ""},
		{"http://proxy.example:[95-80]", ""},
		{"http://proxy.example:[80-]", ""},
		{"http://proxy.example:[80-95]:80", ""},
		{"http://proxy.example:80-95", ""},
	} {
		u, err := Parse(x.in)
		if got := ""; err == nil {
			if got = u.Pick(); got != x.want {
				t.Errorf("%q: %q, want %q", x.in, got, x.want)
			}
		} else if x.want != "" {
			t.Errorf("%q: %v", x.in, err)
		}
	}
}

func TestRangeIsUsed(t *testing.T) {
	u, err := Parse("dhtproxy.jami.net:[80-95]")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 2000 {
		seen[u.Pick()] = true
	}
	if len(seen) != 16 || !seen["https://dhtproxy.jami.net:80"] || !seen["https://dhtproxy.jami.net:95"] {
		t.Errorf("%d ports: %v", len(seen), seen)
	}
}

// FuzzParse: what is taken can be asked.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"http://proxy.example:[80-95]/x", "[::1]:8443", "proxy.example", "http://[::1]:[1-2]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		p, err := url.Parse(u.Pick())
		if err != nil || p.Hostname() == "" || p.Port() == "" {
			t.Errorf("%q became %q: %v", s, u.Pick(), err)
		}
	})
}

// Who was sent away from one port asks another one next.
func TestAnotherPortIsPicked(t *testing.T) {
	for in, want := range map[string]bool{"http://x:[80-81]": true, "http://x:[80-95]": true, "http://x": false} {
		u, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if last := u.Pick(); (u.PickOther(last) != last) != want {
				t.Errorf("%s: after %s", in, last)
			}
		}
	}
}
