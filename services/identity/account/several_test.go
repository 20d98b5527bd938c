package account

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// otherKeys are those of one more account.
func otherKeys(t *testing.T) *Keys {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &Keys{CA: testKeys().CA, Account: k, Device: testKeys().Device}
}

func ids(accounts ...*Account) (out []jami.ID) {
	for _, a := range accounts {
		out = append(out, a.Chain.JamiID)
	}
	return out
}

func TestSeveralAccounts(t *testing.T) {
	root, main := create(t)
	if _, err := (&Store{Root: root}).Create(testKeys(), testSettings, time.Now()); !errors.Is(err, ErrSame) {
		t.Errorf("the same account again: %v", err)
	}
	var made []*Account
	for range 3 { // their directories' names are random, and the order is not theirs
		a, err := (&Store{Root: root}).Create(otherKeys(t), testSettings, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, a)
	}
	all := func() (got []jami.ID, damaged []error) {
		t.Helper()
		a, err := (&Store{Root: root}).Load()
		if err != nil {
			t.Fatal(err)
		}
		others, damaged, err := (&Store{Root: root}).LoadOthers()
		if err != nil {
			t.Fatal(err)
		}
		return ids(append([]*Account{a}, others...)...), damaged
	}
	if got, _ := all(); !slices.Equal(got, ids(append([]*Account{main}, made...)...)) {
		t.Errorf("loaded %v", got)
	}

	// One that is damaged leaves the others working.
	if err := os.Truncate(filepath.Join(made[1].Dir, fileChain), 10); err != nil {
		t.Fatal(err)
	}
	got, damaged := all()
	if !slices.Equal(got, ids(main, made[0], made[2])) || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), made[1].Dir) {
		t.Errorf("loaded %v, damaged %v", got, damaged)
	}

	// An import takes the main one's place, and leaves the others where they are.
	a, aside, err := (&Store{Root: root}).Import(stock(t, stockPlain), nil, testKeys().Device, Main, time.Now())
	if err != nil || len(aside) != 1 {
		t.Fatal(aside, err)
	}
	if got, _ := all(); !slices.Equal(got, ids(a, made[0], made[2])) {
		t.Errorf("after the import %v", got)
	}
	if _, _, err := (&Store{Root: root}).Import(stock(t, stockPlain), nil, testKeys().Device, Beside, time.Now()); !errors.Is(err, ErrSame) {
		t.Errorf("imported twice: %v", err)
	}

	to, err := made[0].Retire(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, fileArchive)); err != nil {
		t.Error(err)
	}
	if got, _ := all(); !slices.Equal(got, ids(a, made[2])) {
		t.Errorf("after one was retired %v", got)
	}
}

// A killed process leaves an order that does not name all, or names what is gone.
func TestOrderOfAccountsThatIsBehind(t *testing.T) {
	root, main := create(t)
	other, err := (&Store{Root: root}).Create(otherKeys(t), testSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first := func() jami.ID {
		t.Helper()
		a, err := (&Store{Root: root}).Load()
		if err != nil {
			t.Fatal(err)
		}
		return a.Chain.JamiID
	}
	for _, names := range [][]string{
		{filepath.Base(main.Dir)},
		{"0123456789abcdef", filepath.Base(main.Dir), filepath.Base(other.Dir)},
		{filepath.Base(main.Dir), filepath.Base(main.Dir), "../x"},
	} {
		if err := writeOrder(root, names); err != nil {
			t.Fatal(err)
		}
		if first() != main.Chain.JamiID {
			t.Errorf("%v: another main account", names)
		}
	}
	for _, text := range []string{"{", "", "[]"} {
		if err := os.WriteFile(filepath.Join(root, fileOrder), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var d *DamagedError
		if _, err := (&Store{Root: root}).Load(); !errors.As(err, &d) || d.Path != filepath.Join(root, fileOrder) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
