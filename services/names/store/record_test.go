package store

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
)

func FuzzDecode(f *testing.F) {
	r, err := names.Sign("alice", namestest.Accounts(f, 1)[0])
	if err != nil {
		f.Fatal(err)
	}
	good := encode(&r, time.Unix(1<<31, 0))
	f.Add(good)
	f.Add(good[:100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := decode("alice", b)
		if !ok {
			return
		}
		if again := encode(&r, time.Unix(int64(binary.BigEndian.Uint64(b)), 0)); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
