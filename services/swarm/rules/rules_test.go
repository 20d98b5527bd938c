package rules_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"errors"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/rules"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

// tree makes a file list whose blobs are in memory.
func tree(files map[string][]byte) *rules.Tree {
	blobs := map[plumbing.Hash][]byte{}
	t := &rules.Tree{Blobs: map[string]plumbing.Hash{}, Read: func(h plumbing.Hash) ([]byte, error) { return blobs[h], nil }}
	sum := ""
	for p, data := range files {
		h := plumbing.ComputeHash(plumbing.BlobObject, data)
		t.Blobs[p], blobs[h] = h, data
		sum += p + h.String()
	}
	t.ID = plumbing.ComputeHash(plumbing.TreeObject, []byte(sum))
	return t
}

func TestRules(t *testing.T) {
	id, other := swarmtest.New(t), swarmtest.New(t)
	own := func() map[string][]byte {
		return map[string][]byte{"admins/" + id.URI + ".crt": id.AccountPEM, "devices/" + id.Device + ".crt": id.DevicePEM}
	}
	with := func(path string, data []byte) map[string][]byte {
		f := own()
		if data == nil {
			delete(f, path)
		} else {
			f[path] = data
		}
		return f
	}
	renewed := *id
	renewed.RenewDevice(t)
	text, initial := `{"body":"hi","type":"text/plain"}`, `{"mode":2,"type":"initial"}`
	forged := swarmtest.Identity{Author: id.Author, Account: other.Account, DeviceKey: id.DeviceKey}
	forged.RenewDevice(t) // of the same key, signed by another account

	for _, tt := range []struct {
		name, message string
		files, old    map[string][]byte // old nil: a first commit
		edit          func(*commit.Commit)
		ok            bool
	}{
		{name: "initial", message: initial, files: own(), ok: true},
		{name: "text", message: text, files: own(), old: own(), ok: true},
		{name: "unknown type", message: `{"type":"application/x"}`, files: own(), old: own(), ok: true},
		{name: "renewed device", message: text, files: with("devices/"+id.Device+".crt", renewed.DevicePEM), old: own(), ok: true},
		{name: "device added", message: text, files: own(), old: with("devices/"+id.Device+".crt", nil), ok: true},
		{name: "initial with mode 0", message: `{"mode":0,"type":"initial"}`, files: own()},
		{name: "initial without a mode", message: `{"type":"initial"}`, files: own()},
		{name: "initial with another file", message: initial, files: with("x", []byte("x"))},
		{name: "initial without the account", message: initial, files: with("admins/"+id.URI+".crt", nil)},
		{name: "text first", message: text, files: own()},
		{name: "initial twice", message: initial, files: own(), old: own()},
		{name: "vote", message: `{"type":"vote","uri":"x"}`, files: own(), old: own()},
		{name: "merge", message: "Merge commit 'x'", files: own(), old: own(), edit: func(c *commit.Commit) { c.Parents = append(c.Parents, plumbing.ZeroHash) }},
		{name: "file smuggled in", message: text, files: with("banned/x", []byte("x")), old: own()},
		{name: "file taken away", message: text, files: own(), old: with("members/"+other.URI+".crt", other.AccountPEM)},
		{name: "device missing", message: text, files: with("devices/"+id.Device+".crt", nil), old: own()},
		{name: "device of another", message: text, files: with("devices/"+id.Device+".crt", other.DevicePEM), old: own()},
		{name: "account of another", message: text, files: with("admins/"+id.URI+".crt", other.AccountPEM), old: own()},
		{name: "device certificate forged", message: text, files: with("devices/"+id.Device+".crt", forged.DevicePEM), old: own()},
		{name: "no certificate", message: text, files: with("devices/"+id.Device+".crt", []byte("junk")), old: own()},
		{name: "not signed", message: text, files: own(), old: own(), edit: func(c *commit.Commit) { c.Signature = nil }},
		{name: "signature of other bytes", message: text, files: own(), old: own(), edit: func(c *commit.Commit) { c.Message = []byte(`{"body":"ho","type":"text/plain"}`) }},
		{name: "after the certificate ended", message: text, files: own(), old: own(), edit: func(c *commit.Commit) {
			c.Time = time.Now().AddDate(20, 0, 0)
			sign(t, c, id.DeviceKey)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &commit.Commit{Name: "A", Device: id.Device, Time: time.Now(), Message: []byte(tt.message)}
			var old *rules.Tree
			if tt.old != nil {
				old, c.Parents = tree(tt.old), []plumbing.Hash{plumbing.NewHash("ddf6dfb319f74a778abee7ba7f549090bec69d21")}
			}
			sign(t, c, id.DeviceKey)
			if tt.edit != nil {
				tt.edit(c)
			}
			_, err := rules.NewChecker(nil).Check(c, c.Unsigned(), tree(tt.files), old)
			if tt.ok && err != nil {
				t.Fatal(err)
			}
			if !tt.ok && !errors.Is(err, rules.ErrInvalid) && !errors.Is(err, commit.ErrMalformed) {
				t.Fatalf("accepted, or another error: %v", err)
			}
		})
	}
}

// What a device wrote before it was revoked stays good.
func TestCommitsOfRevokedDevices(t *testing.T) {
	id := swarmtest.New(t)
	at := time.Now().Add(-20 * time.Minute).Truncate(time.Second)
	revoked := id.Revoke(t, at)
	files := tree(map[string][]byte{"admins/" + id.URI + ".crt": id.AccountPEM, "devices/" + id.Device + ".crt": id.DevicePEM})
	k := rules.NewChecker(revoked)
	for _, tt := range []struct {
		after time.Duration
		ok    bool
	}{{-time.Hour, true}, {0, true}, {5 * time.Minute, true}, {5*time.Minute + time.Second, false}, {-time.Second, true}, {time.Hour, false}} {
		c := &commit.Commit{Name: "A", Device: id.Device, Time: at.Add(tt.after), Message: []byte(`{"body":"hi","type":"text/plain"}`),
			Parents: []plumbing.Hash{plumbing.NewHash("ddf6dfb319f74a778abee7ba7f549090bec69d21")}}
		sign(t, c, id.DeviceKey)
		_, err := k.Check(c, c.Unsigned(), files, files)
		if tt.ok && err != nil || !tt.ok && (!errors.Is(err, rules.ErrInvalid) || !errors.Is(err, &trust.Error{Reason: trust.Revoked})) {
			t.Errorf("%s after the revocation: %v", tt.after, err)
		}
	}
}

func sign(t *testing.T, c *commit.Commit, k *rsa.PrivateKey) {
	t.Helper()
	sum := sha512.Sum512(c.Unsigned())
	sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	c.Signature = sig
}
