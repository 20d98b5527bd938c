package permanent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/parley-jami/parley/services/dht/overlay"
)

func TestList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "permanent.json")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	k1, k2 := overlay.Key{1}, overlay.Key{2}
	for _, v := range []overlay.Value{
		{Key: k1, ID: 1, Data: []byte("old")}, {Key: k2, ID: 1, Type: 8, Data: []byte{0, 255}}, {Key: k1, ID: 1, Data: []byte("new")},
	} {
		if err := l.Set(v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Remove(k1, 9); err != nil {
		t.Errorf("removing what isn't there: %v", err)
	}
	if l, err = Open(path); err != nil {
		t.Fatal(err)
	}
	all := l.All()
	if len(all) != 2 || string(all[0].Data) != "new" || all[1].Type != 8 || !bytes.Equal(all[1].Data, []byte{0, 255}) {
		t.Errorf("after a restart: %+v", all)
	}
	if _, err := l.Remove(k1, 1); err != nil || len(l.All()) != 1 {
		t.Errorf("remove: %v, %v", l.All(), err)
	}
	for i := range maxList + 1 {
		err = l.Set(overlay.Value{Key: k1, ID: uint64(i + 10)})
	}
	if !errors.Is(err, overlay.ErrQuota) {
		t.Errorf("without end: %v", err)
	}
}

func TestDamagedFileIsKept(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"values":[{"key":"00","id":"1"}]}`} {
		path := filepath.Join(t.TempDir(), "permanent.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path)
		var d *DamagedError
		if !errors.As(err, &d) {
			t.Errorf("%q: %v", text, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q became %q, %v", text, b, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"values":[{"key":"0100000000000000000000000000000000000000","id":"1","type":8,"data":"AP8="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		vs, err := parse(b)
		for _, v := range vs {
			if err == nil && v.ID == 0 {
				t.Error("id 0")
			}
		}
	})
}
