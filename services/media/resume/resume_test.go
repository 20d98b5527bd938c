package resume

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTableOutlives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	now := time.Now()
	a, fresh, err := OpenTable(path, now)
	if err != nil || !fresh {
		t.Fatalf("fresh %t, %v", fresh, err)
	}
	s, at, err := a.Take(77)
	if err != nil {
		t.Fatal(err)
	}
	s.Sent.Store(5 << 16)
	b, fresh, err := OpenTable(path, now.Add(Stale-time.Second))
	if err != nil || fresh {
		t.Fatalf("fresh %t, %v", fresh, err)
	}
	if _, ok := b.Claim(at, 78); ok {
		t.Error("another's slot given out")
	}
	got, ok := b.Claim(at, 77)
	if !ok || got.Sent.Load() != 5<<16 {
		t.Fatalf("slot not there again: %t", ok)
	}
	if _, ok := b.Claim(at, 77); ok {
		t.Error("one slot claimed twice")
	}
	if _, other, err := b.Take(1); err != nil || other == at {
		t.Errorf("slot %d given out twice, %v", other, err)
	}
	b.Free(at)
	if _, ok := b.Claim(at, 77); ok {
		t.Error("freed slot claimed")
	}
	if _, fresh, err := OpenTable(path, now.Add(3*Stale)); err != nil || !fresh {
		t.Errorf("stale table believed: %v", err)
	}
}

func TestTableFull(t *testing.T) {
	m := Memory()
	for i := range Slots {
		if _, _, err := m.Take(uint64(i) + 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := m.Take(1); err != ErrFull {
		t.Errorf("%v", err)
	}
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "legs")
	f, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for tag := range uint64(3) {
		if err := f.Save(tag, map[string]uint64{"n": tag}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Delete(1); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"bad.json": "{", "0000000000000009.json.new": "{"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []uint64
	refused := 0
	err = f.Load(func(raw []byte) error {
		var v map[string]uint64
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		got = append(got, v["n"])
		return nil
	}, func(string, error) { refused++ })
	if err != nil || len(got) != 2 || refused != 1 {
		t.Errorf("loaded %v, %d refused, %v", got, refused, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "0000000000000002.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v", err)
	}
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "bad.json.damaged" {
		t.Errorf("left: %v, %v", left, err)
	}
}
