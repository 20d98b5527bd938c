package account

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The order is on disk before an account is: a process that is killed between, or a disk
// that refuses, leaves no account without a place, which might come first by its name.
func TestNoAccountWithoutAPlace(t *testing.T) {
	for _, where := range []Place{Beside, Main} {
		root, main := create(t)
		if err := os.Mkdir(filepath.Join(root, fileOrder), 0o700); err != nil { // no file can take its place
			t.Fatal(err)
		}
		_, _, err := (&Store{Root: root}).Import(stock(t, stockPlain), nil, testKeys().Device, where, time.Now())
		if err == nil {
			t.Fatal("imported, with no order written")
		}
		found, err := list(root)
		if err != nil || !slices.Equal(found, []string{filepath.Base(main.Dir)}) {
			t.Errorf("place %d: %v, %v: want the main account alone", where, found, err)
		}
	}
}
