package api

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/names/namestest"
	"github.com/parley-jami/parley/services/jams/store"
)

// Ten thousand accounts: no answer has more than a page, and each account is in one.
func TestManyAccounts(t *testing.T) {
	const many = 10_000
	s, err := store.Open(filepath.Join(t.TempDir(), "accounts.db"), [32]byte{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	keys := namestest.Accounts(t, 2)
	ca, err := jami.NewCA(keys[0], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := jami.NewAccount(&keys[1].PublicKey, ca, keys[0], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	work := make(chan int, many)
	for i := range many {
		work <- i
	}
	close(work)
	done := make(chan error)
	const atOnce = 256
	for range atOnce {
		go func() {
			for i := range work {
				if _, err := s.AddUser(store.User{Name: fmt.Sprintf("user-%05d", i), DisplayName: fmt.Sprintf("Person %d", i%100), Cert: cert.Raw}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range atOnce {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	a := NewAccounts(nil, s, 2048, zaptest.NewLogger(t))
	seen, pages, after := 0, 0, ""
	began := time.Now()
	for {
		p, err := a.List("", after, jams.MaxPage)
		if err != nil || len(p.Accounts) > jams.MaxPage || p.Total != many {
			t.Fatalf("%d of %d, %v", len(p.Accounts), p.Total, err)
		}
		seen += len(p.Accounts)
		pages++
		if after = p.Next; after == "" {
			break
		}
	}
	if seen != many {
		t.Errorf("%d in %d pages", seen, pages)
	}
	t.Logf("%s a page", time.Since(began)/time.Duration(pages))
	if p, err := a.List("person 42", "user-05", 10); err != nil || p.Total != many/100 || len(p.Accounts) != 10 || p.Accounts[0].Name != "user-05042" || p.Next != "user-05942" {
		t.Errorf("%d of %d, next %s, %v", len(p.Accounts), p.Total, p.Next, err)
	}
}

// An account whose devices were revoked again and again: the answer is bounded.
func TestManyRevokedDevices(t *testing.T) {
	now := time.Now()
	var list []store.Device
	for i := range 300 {
		d := store.Device{ID: jami.LongID{byte(i), byte(i >> 8)}, Created: now.Add(time.Duration(i) * time.Second)}
		if i%10 != 0 {
			d.Revoked = now.Add(time.Hour)
		}
		list = append(list, d)
	}
	l := listed(store.User{}, list)
	if len(l.Devices) != jams.MaxListed || l.MoreDevices != 300-jams.MaxListed {
		t.Fatalf("%d and %d more", len(l.Devices), l.MoreDevices)
	}
	for i, d := range l.Devices {
		if d.Revoked.IsZero() != (i < 30) {
			t.Fatalf("device %d: revoked %s", i, d.Revoked)
		}
	}
	if first := l.Devices[30]; !first.Created.Equal(now.Add(299 * time.Second)) {
		t.Errorf("the newest revoked one is not the first: %s", first.Created)
	}
}
