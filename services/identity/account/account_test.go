package account

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// testKeys are shorter than an account's, for the time they take.
var testKeys = sync.OnceValue(func() *Keys {
	var k [3]*rsa.PrivateKey
	for i := range k {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		k[i] = key
	}
	return &Keys{CA: k[0], Account: k[1], Device: k[2]}
})

var testSettings = Settings{Alias: "Parley", Rendezvous: true}

func create(t testing.TB) (root string, a *Account) {
	t.Helper()
	root = t.TempDir()
	a, err := (&Store{Root: root}).Create(testKeys(), testSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return root, a
}

func TestCreateAndLoad(t *testing.T) {
	root, made := create(t)
	got, err := (&Store{Root: root}).Load()
	if err != nil {
		t.Fatal(err)
	}
	if got.Dir != made.Dir || got.Settings() != testSettings || got.Receipt.Text != made.Receipt.Text {
		t.Errorf("loaded %+v, made %+v", got.Settings(), made.Settings())
	}
	if !testKeys().Device.PublicKey.Equal(got.DeviceKey().Public()) {
		t.Error("another device key")
	}
	if eth := got.Receipt.Eth; len(eth) != 40 {
		t.Errorf("eth address %q", eth)
	}
}

func TestFilesAreForTheOwnerAlone(t *testing.T) {
	root, a := create(t)
	err := filepath.WalkDir(a.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 1 || len(entries[0].Name()) != 16 {
		t.Errorf("root has %v, %v; want one directory of 16 hex digits", entries, err)
	}
}

func TestArchiveHoldsTheAccount(t *testing.T) {
	_, a := create(t)
	b, err := os.ReadFile(filepath.Join(a.Dir, fileArchive))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := jami.ParseArchive(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	k := testKeys()
	if !archive.AccountKey.Equal(k.Account) || !archive.CAKey.Equal(k.CA) || len(archive.EthKey) != 32 {
		t.Error("the archive's keys are not those of the account")
	}
	key, err := jami.MarshalKey(k.Device)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, key) {
		t.Error("the device key is in the archive")
	}
}

func TestChangeIsKept(t *testing.T) {
	root, a := create(t)
	want := Settings{Alias: "Stammtisch „Köln“: yes", Rendezvous: false}
	if _, err := a.Change(func(s *Settings) { *s = want }); err != nil {
		t.Fatal(err)
	}
	got, err := (&Store{Root: root}).Load()
	if err != nil {
		t.Fatal(err)
	}
	if got.Settings() != want {
		t.Errorf("settings %+v, want %+v", got.Settings(), want)
	}
}

func TestChangeKeepsForeignSettings(t *testing.T) {
	root, a := create(t)
	path := filepath.Join(a.Dir, fileConfig)
	edit(t, path, func(b []byte) []byte { return append(b, "ringtone:\n  path: /x.wav\n"...) })
	a, err := (&Store{Root: root}).Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Change(func(s *Settings) { s.Alias = "new" }); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(b), "/x.wav") {
		t.Errorf("foreign setting lost: %s, %v", b, err)
	}
	if _, err := (&Store{Root: root}).Load(); err != nil {
		t.Error(err)
	}
}

func TestFailedChangeChangesNothing(t *testing.T) {
	_, a := create(t)
	a.Dir = filepath.Join(a.Dir, "absent")
	if _, err := a.Change(func(s *Settings) { s.Alias = "new" }); err == nil {
		t.Fatal("wrote into a directory that isn't there")
	}
	if a.Settings() != testSettings {
		t.Errorf("settings %+v changed in memory", a.Settings())
	}
}

func TestNoAccount(t *testing.T) {
	if _, err := (&Store{Root: t.TempDir()}).Load(); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
}

func TestHalfMadeAccountIsNoAccount(t *testing.T) {
	root, a := create(t)
	half := filepath.Join(root, newPrefix+filepath.Base(a.Dir))
	if err := os.Rename(a.Dir, half); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Store{Root: root}).Load(); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-made directory is still there: %v", err)
	}
}

func TestDamage(t *testing.T) {
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	flip := func(b []byte) []byte { b[len(b)/2] ^= 0x20; return b }
	for _, x := range []struct {
		name, file string
		damage     func([]byte) []byte // nil: remove
	}{
		{"archive cut", fileArchive, cut},
		{"archive bit", fileArchive, flip},
		{"archive empty", fileArchive, func([]byte) []byte { return nil }},
		{"archive missing", fileArchive, nil},
		{"archive of another account", fileArchive, otherArchive(t)},
		{"config cut", fileConfig, cut},
		{"config not YAML", fileConfig, func([]byte) []byte { return []byte("{{{") }},
		{"config without receipt", fileConfig, func([]byte) []byte { return []byte("alias: x\n") }},
		{"config of a wrong type", fileConfig, func(b []byte) []byte {
			return bytes.Replace(b, []byte("rendezVous: true"), []byte("rendezVous: [1]"), 1)
		}},
		{"receipt changed", fileConfig, func(b []byte) []byte { return bytes.Replace(b, []byte(`"eth":"`), []byte(`"eth":"0`), 1) }},
		{"key cut", fileKey, cut},
		{"key missing", fileKey, nil},
		{"key of another device", fileKey, func([]byte) []byte {
			b, err := jami.MarshalKey(testKeys().CA)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}},
		{"chain cut", fileChain, cut},
		{"chain missing", fileChain, nil},
		{"contacts", fileContacts, func([]byte) []byte { return []byte{0x82, 1} }},
		{"known devices", fileKnown, func([]byte) []byte { return []byte("\x81\xa1x\x92") }},
	} {
		t.Run(x.name, func(t *testing.T) {
			root, a := create(t)
			path := filepath.Join(a.Dir, x.file)
			if x.damage == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				edit(t, path, x.damage)
			}
			before := snapshot(t, root)
			_, err := (&Store{Root: root}).Load()
			var d *DamagedError
			if !errors.As(err, &d) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v; want a DamagedError that names %s", err, path)
			}
			if after := snapshot(t, root); after != before {
				t.Error("files were changed")
			}
		})
	}
}

// TestTheClockDamagesNothing: a step of the clock is no damage, and told with what to
// do about it.
func TestTheClockDamagesNothing(t *testing.T) {
	root := t.TempDir()
	at := time.Now().AddDate(30, 0, 0) // the clock was wrong when it was made
	if _, err := (&Store{Root: root}).Create(testKeys(), testSettings, at); err != nil {
		t.Fatal(err)
	}
	a, err := (&Store{Root: root}).Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		now  time.Time
		want string
	}{
		{at, ""},
		{at.Add(-time.Hour), ""}, // set back a little
		{time.Now(), "set the clock"},
		{time.Unix(0, 0), "set the clock"},
		{at.Add(jami.Validity + time.Hour), "renew"},
	} {
		if err := a.Dates(x.now); (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("at %v: %v, want %q", x.now, err, x.want)
		}
	}
}

// TestARefusalOfTheDiskIsNoDamage: it may pass.
func TestARefusalOfTheDiskIsNoDamage(t *testing.T) {
	root, a := create(t)
	path := filepath.Join(a.Dir, fileChain)
	if err := os.Rename(path, path+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fileChain, path); err != nil { // ELOOP, as any errno; root may read all
		t.Fatal(err)
	}
	var d *DamagedError
	if _, err := (&Store{Root: root}).Load(); err == nil || errors.As(err, &d) || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want an error of the system", err)
	}
	if err := os.Rename(path+".kept", path); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Store{Root: root}).Load(); err != nil {
		t.Fatal(err)
	}
}

func TestRevokedDeviceIsRefused(t *testing.T) {
	other := big.NewInt(4711)
	for name, x := range map[string]struct {
		serials func(a *Account) []*big.Int
		signer  *rsa.PrivateKey
		want    string // empty: it loads
	}{
		"another device": {func(*Account) []*big.Int { return []*big.Int{other} }, testKeys().Account, ""},
		"this device":    {func(a *Account) []*big.Int { return []*big.Int{other, a.Chain.Device.SerialNumber} }, testKeys().Account, "was revoked"},
		"not signed by the account": {func(*Account) []*big.Int { return nil }, testKeys().Device,
			fileArchive + " is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			root, a := create(t)
			list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().AddDate(1, 0, 0)}
			for _, n := range x.serials(a) {
				list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now()})
			}
			issuer := *a.Chain.Account
			issuer.PublicKey = &x.signer.PublicKey
			crl, err := x509.CreateRevocationList(rand.Reader, list, &issuer, x.signer)
			if err != nil {
				t.Fatal(err)
			}
			edit(t, filepath.Join(a.Dir, fileArchive), func(b []byte) []byte {
				archive, err := jami.ParseArchive(b, nil)
				if err != nil {
					t.Fatal(err)
				}
				archive.CRL = crl
				if b, err = archive.Pack(nil); err != nil {
					t.Fatal(err)
				}
				return b
			})
			_, err = (&Store{Root: root}).Load()
			if x.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var d *DamagedError
			if !errors.As(err, &d) || !strings.Contains(err.Error(), x.want) {
				t.Fatalf("got %v, want %q", err, x.want)
			}
		})
	}
}

func TestMakeKeysEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := MakeKeys(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("alias: x\nrendezVous: true\nringAccountReceipt: '{}'\nringAccountReceiptSignature: !!binary /w==\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, s, _, _, err := parseConfig(b)
		if err != nil || m == nil {
			return
		}
		putSettings(m, s)
		again, err := marshalConfig(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, s2, _, _, err := parseConfig(again); err != nil || s2 != s {
			t.Errorf("%+v became %+v, %v", s, s2, err)
		}
	})
}

func otherArchive(t *testing.T) func([]byte) []byte {
	return func([]byte) []byte {
		k := testKeys()
		other := &Keys{CA: k.CA, Account: k.Device, Device: k.Account}
		files, err := new(Store).build(other, testSettings, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return files[fileArchive]
	}
}

func edit(t *testing.T, path string, fn func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fn(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// snapshot is the names and content of everything below root.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out.WriteString(path)
		out.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func BenchmarkLoad(b *testing.B) {
	keys, err := MakeKeys(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	root := b.TempDir()
	if _, err := (&Store{Root: root}).Create(keys, testSettings, time.Now()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := (&Store{Root: root}).Load(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate is the making of an account: three keys of full size, certificates,
// receipt and files.
func BenchmarkCreate(b *testing.B) {
	for b.Loop() {
		keys, err := MakeKeys(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := (&Store{Root: b.TempDir()}).Create(keys, testSettings, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
