package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"testing"
)

// stockHello is what dhtnode 2.4.12 sent.
func stockHello(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString("81a364687493c41440db82948ee3a439a648698fd05f387e1b87b11acd138900")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHello(t *testing.T) {
	stock := stockHello(t)
	h, asks, err := ParseHello(stock)
	if err != nil || asks || h.Port != 5001 || h.Network != 0 || h.ID.String() != "40db82948ee3a439a648698fd05f387e1b87b11a" {
		t.Errorf("%+v, %v, %v", h, asks, err)
	}
	if got := h.Append(nil); !bytes.Equal(got, stock) {
		t.Errorf("%x", got)
	}
	if _, asks, err := ParseHello(HelloQuestion()); err != nil || !asks {
		t.Errorf("a question: %v, %v", asks, err)
	}
	both := append([]byte("\x82\xa4jami\x91\x90"), stock[1:]...)
	if got, asks, err := ParseHello(both); err != nil || asks || got != h {
		t.Errorf("beside another service: %+v, %v, %v", got, asks, err)
	}
	for name, b := range hostileHellos(stock) {
		if got, asks, err := ParseHello(b); !errors.Is(err, ErrPacket) || asks || got != (Hello{}) {
			t.Errorf("%s: %+v, %v, %v", name, got, asks, err)
		}
	}
}

func hostileHellos(stock []byte) map[string][]byte {
	return map[string][]byte{
		"nothing":                  nil,
		"another question":         []byte("\xa1r"),
		"another service":          []byte("\x81\xa4jami\x90"),
		"an empty map":             {0x80},
		"cut":                      stock[:len(stock)-1],
		"two fields":               []byte("\x81\xa3dht\x92\xc4\x14aaaaaaaaaaaaaaaaaaaa\x01"),
		"a short id":               []byte("\x81\xa3dht\x93\xc4\x01a\x01\x00"),
		"a port above all":         []byte("\x81\xa3dht\x93\xc4\x14aaaaaaaaaaaaaaaaaaaa\xce\x00\x01\x00\x00\x00"),
		"a map of 2^32":            []byte("\xdf\xff\xff\xff\xff\xa1aabc"),
		"a name of 2^32":           []byte("\x81\xdb\xff\xff\xff\xffabc"),
		"a value of 2^32":          []byte("\x81\xa1x\xc6\xff\xff\xff\xffabc"),
		"an extension of 2^32":     []byte("\x81\xa1x\xc9\xff\xff\xff\xff\x01abc"),
		"a question of 2^32 bytes": []byte("\xdb\xff\xff\xff\xffabc"),
		"nested":                   append([]byte("\x81\xa1x"), bytes.Repeat([]byte{0x91}, 1000)...),
	}
}

// TestHelloTakesNoMemory: what a datagram announces is not made.
func TestHelloTakesNoMemory(t *testing.T) {
	for name, b := range hostileHellos(stockHello(t)) {
		const times = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			if _, _, err := ParseHello(b); err == nil {
				t.Fatalf("%s: read", name)
			}
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / times; each > 512 { // an error
			t.Errorf("%s: %d bytes", name, each)
		}
	}
}

// FuzzParseHello: what is read can be written and read again.
func FuzzParseHello(f *testing.F) {
	stock := stockHello(f)
	f.Add(stock)
	f.Add(HelloQuestion())
	for _, b := range hostileHellos(stock) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, asks, err := ParseHello(b)
		if err != nil || asks {
			if h != (Hello{}) {
				t.Errorf("%+v, %v, %v", h, asks, err)
			}
			return
		}
		if again, asks, err := ParseHello(h.Append(nil)); err != nil || asks || again != h {
			t.Errorf("%+v, %v, %v; before %+v", again, asks, err, h)
		}
	})
}
