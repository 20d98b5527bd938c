package account

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

var testSeal = []byte("of the container")

// clearKeys names the files below root that hold a private key in the clear.
func clearKeys(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = jami.ParseArchive(b, nil)
		if bytes.Contains(b, []byte("BEGIN PRIVATE KEY")) || err == nil {
			names = append(names, d.Name())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestKeysAtRest(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	root := t.TempDir()
	sealed := &Store{Root: root, Seal: testSeal}
	made, err := sealed.Create(testKeys(), testSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if left := clearKeys(t, root); len(left) > 0 {
		t.Errorf("in the clear: %v", left)
	}
	a, err := sealed.Load()
	if err != nil || a.Chain.JamiID != made.Chain.JamiID || a.Guard() != Known {
		t.Fatalf("%+v, %v", a, err)
	}
	// It works as any other: it is exported as one likes, and changed unasked.
	b, err := a.Export(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := jami.ParseArchive(b, nil); err != nil || plain.ID() != a.Chain.JamiID {
		t.Errorf("exported: %v", err)
	}
	if err := a.ChangeArchive(nil, func(*jami.Archive) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := a.SetPassword(nil, []byte("own")); err != nil {
		t.Fatal(err)
	}
	if err := a.SetPassword(nil, nil); err != nil { // back to the seal
		t.Fatal(err)
	}
	if left := clearKeys(t, root); len(left) > 0 {
		t.Errorf("in the clear after the password was removed: %v", left)
	}

	before := snapshot(t, root)
	for _, seal := range [][]byte{nil, []byte("another")} {
		var d *DamagedError
		if _, err := (&Store{Root: root, Seal: seal}).Load(); !errors.As(err, &d) || d.Advice != sealedAdvice || snapshot(t, root) != before {
			t.Errorf("with %q: %v", seal, err)
		}
	}
	out, err := exec.Command("openssl", "pkey", "-in", filepath.Join(a.Dir, fileKey), "-passin", "pass:"+string(testSeal), "-noout", "-check").CombinedOutput()
	if err != nil {
		t.Errorf("openssl: %v %s", err, out)
	}
}

// An account of before is encrypted when the node gets what to encrypt it with.
func TestKeysGetEncrypted(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	root, made := create(t)
	if left := clearKeys(t, root); len(left) != 2 {
		t.Fatalf("in the clear: %v", left)
	}
	for range 2 {
		a, err := (&Store{Root: root, Seal: testSeal}).Load()
		if err != nil || a.Chain.DeviceID != made.Chain.DeviceID {
			t.Fatal(err)
		}
		if left := clearKeys(t, root); len(left) > 0 {
			t.Errorf("in the clear: %v", left)
		}
	}
	// An archive with a password of its own keeps that.
	root = t.TempDir()
	withPassword := &Store{Root: root, Seal: testSeal, Password: []byte(stockPW)}
	if _, _, err := withPassword.Import(stock(t, stockPassword), []byte(stockPW), testKeys().Device, Alone, time.Now()); err != nil {
		t.Fatal(err)
	}
	if a, err := (&Store{Root: root, Seal: testSeal}).Load(); err != nil || a.Guard() != Locked {
		t.Errorf("%v", err)
	}
}

func TestCloseForgetsTheKey(t *testing.T) {
	root, _ := create(t)
	a, err := (&Store{Root: root}).Load()
	if err != nil {
		t.Fatal(err)
	}
	k := a.DeviceKey().(*rsa.PrivateKey)
	p, d := k.Primes[0].Bits(), k.D.Bits()
	a.Close()
	for _, w := range append(p, d...) {
		if w != 0 {
			t.Fatal("some of a prime or of the exponent is still there")
		}
	}
}

// What was moved aside, and what waits for a certificate, is encrypted as well.
func TestKeysThatAreNotInUse(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	root, a := create(t)
	if _, err := a.Retire(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Store{Root: root}).Request(testKeys(), testSettings, time.Now()); err != nil {
		t.Fatal(err)
	}
	if left := clearKeys(t, root); len(left) != 4 {
		t.Fatalf("in the clear: %v", left)
	}
	if _, err := (&Store{Root: root, Seal: testSeal}).Load(); !errors.Is(err, ErrNone) {
		t.Fatal(err)
	}
	if left := clearKeys(t, root); len(left) > 0 {
		t.Errorf("in the clear: %v", left)
	}
}

// A backup that was put back one directory too deep is not taken for no account.
func TestAccountInTheWrongPlace(t *testing.T) {
	root, a := create(t)
	deep := filepath.Join(root, "parley-identity-20260101")
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(a.Dir, filepath.Join(deep, filepath.Base(a.Dir))); err != nil {
		t.Fatal(err)
	}
	var d *DamagedError
	if _, err := (&Store{Root: root}).Load(); !errors.As(err, &d) || d.Path != deep {
		t.Errorf("got %v", err)
	}
}
