package sip

import (
	"errors"
	"strings"
	"testing"
)

func TestTargets(t *testing.T) {
	for in, want := range map[string]Target{
		"sip:bob@pbx.example.org":                  {URI: "sip:bob@pbx.example.org", User: "bob", Host: "pbx.example.org", Port: 5060, Transport: "UDP"},
		"sip:bob@PBX.example.org:5070":             {URI: "sip:bob@pbx.example.org:5070", User: "bob", Host: "pbx.example.org", Port: 5070, Transport: "UDP"},
		"sip:+15550100@192.0.2.7;transport=tcp":    {URI: "sip:+15550100@192.0.2.7;transport=tcp", User: "+15550100", Host: "192.0.2.7", Port: 5060, Transport: "TCP"},
		"sip:192.0.2.7;transport=TLS":              {URI: "sip:192.0.2.7;transport=tls", Host: "192.0.2.7", Port: 5061, Transport: "TLS"},
		"sips:bob@192.0.2.7":                       {URI: "sips:bob@192.0.2.7", User: "bob", Host: "192.0.2.7", Port: 5061, Transport: "TLS"},
		"sip:bob@[2001:db8::7]:5070;transport=udp": {URI: "sip:bob@[2001:db8::7]:5070;transport=udp", User: "bob", Host: "2001:db8::7", Port: 5070, Transport: "UDP"},
	} {
		got, err := ParseTarget(in)
		if err != nil || *got != want {
			t.Errorf("%s: %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "bob@x", "tel:+15550100", "sip:", "sip:bob@", "sip:bob:pw@192.0.2.7", "sip:bob@192.0.2.7;maddr=10.0.0.1", "sip:bob@192.0.2.7;transport=ws",
		"sips:bob@192.0.2.7;transport=udp", "sip:bob@192.0.2.7:0x10", "sip:bob@192.0.2.7:70000", "sip:bob@192.0.2.7?Route=x", "sip:bob@192.0.2.7\r\nVia: x",
		"sip:bob@0.0.0.0", "sip:bob@224.0.0.1", "sip:bob@ho st", "sip:b<ob@192.0.2.7", "sip:a@b@192.0.2.7", "sip:bob@fe80::1%25lo", "sip:" + strings.Repeat("b", maxURI) + "@192.0.2.7",
	} {
		if got, err := ParseTarget(in); !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

// What is sent is read as the same again, and cannot end a header or a URI early.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"sip:bob@pbx.example.org:5070;transport=tcp", "sips:bob@[2001:db8::7]", "sip:192.0.2.7", "sip:bob:x@y;a=b?c=d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := ParseTarget(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(x.URI, "\r\n<>\" ,") || x.Port == 0 || x.Host == "" {
			t.Fatalf("%q: %+v", s, x)
		}
		y, err := ParseTarget(x.URI)
		if err != nil || *x != *y {
			t.Fatalf("%q: %+v, then %+v, %v", s, x, y, err)
		}
	})
}
