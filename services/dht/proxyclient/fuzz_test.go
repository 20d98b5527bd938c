package proxyclient

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

// FuzzLineReader: lines are what lies between newlines, however they come, and none is
// longer than it may be.
func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), uint8(3))
	f.Add([]byte("\n"), uint8(0))
	f.Add([]byte(strings.Repeat("x", 300)+"\ny\n"), uint8(200))
	f.Fuzz(func(t *testing.T, b []byte, most uint8) {
		var want [][]byte
		var wantErr error = io.EOF
		for _, l := range bytes.SplitAfter(b, []byte("\n")) {
			l = bytes.TrimSuffix(l, []byte("\n"))
			if len(l) > int(most) {
				wantErr = errLine
				break
			}
			want = append(want, l)
		}
		if wantErr == io.EOF && (len(b) == 0 || b[len(b)-1] == '\n') {
			want = want[:len(want)-1] // nothing is after the last
		}
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
			l := newLineReader(r, int(most))
			var got [][]byte
			var err error
			for {
				var x []byte
				if x, err = l.next(); err != nil {
					break
				}
				got = append(got, bytes.Clone(x))
			}
			if !errors.Is(err, wantErr) || !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("%q, %v; want %q, %v", got, err, want, wantErr)
			}
		}
	})
}

// FuzzParse: no line makes a value that somebody else signed, or none at all.
func FuzzParse(f *testing.F) {
	id, err := mapping.NewSigner(overlaytest.Keys()[0])
	if err != nil {
		f.Fatal(err)
	}
	n := &Node{id: id, log: zap.NewNop()}
	v, err := id.Sign(&overlay.Value{ID: 7, Data: []byte("x")}, 3, false)
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range []string{line(f, v, false), line(f, plain(1, "x"), true), `{"id":"0"}`, "junk", `{"id":"1","cypher":"AAAA"}`} {
		f.Add([]byte(strings.TrimSpace(v)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := n.parse(overlay.Key{1}, b)
		if err != nil || h == nil {
			return
		}
		if h.size == 0 || h.Key != (overlay.Key{1}) || h.Writer == id.ID.String() && string(h.Data) != "x" {
			t.Errorf("%+v", h)
		}
	})
}
