package identity

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// An archive that is larger than a message of the bus comes in parts.
func TestLargeArchive(t *testing.T) {
	srv := bustest.Start(t)
	var svc *Service
	start(t, srv, readyKeys, func(s *Service) { svc = s })
	cli := srv.Conn("cli")
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	const contacts = 30_000
	var wg sync.WaitGroup
	for i := range contacts { // they share two or three writes
		wg.Go(func() {
			if _, err := svc.hosts[0].acc.ChangeContact(jami.HashKey(strconv.Itoa(i)), account.Block, svc.now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the archive is being written too
	defer cancel()
	key, other := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	ask := func(key []byte, from int) (*contract.Sealed, error) {
		return bus.Call(ctx, cli, contract.ArchiveExport, sealed(t, cli, contract.ArchiveExport.Name, contract.Secret{Reply: key, From: from}))
	}
	var cipher []byte
	parts := 0
	for more := true; more; parts++ {
		p, err := ask(key, len(cipher))
		if err != nil {
			t.Fatal(err)
		}
		cipher, more = append(cipher, p.Cipher...), p.More
		if _, err := ask(other, len(cipher)); !errors.Is(err, contract.ErrGone) {
			t.Errorf("who did not ask for it gets a part: %v", err)
		}
	}
	b, err := jami.Open(key, cipher)
	if err != nil {
		t.Fatal(err)
	}
	a, err := jami.ParseArchive(b, nil)
	if err != nil || len(a.Contacts) != contacts || parts < 2 {
		t.Errorf("%d parts, %v", parts, err)
	}
	if _, err := ask(key, len(cipher)); !errors.Is(err, contract.ErrGone) {
		t.Errorf("after the last part: %v", err)
	}
	if _, err := ask(key, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(key, 1); !errors.Is(err, contract.ErrGone) {
		t.Errorf("not where the last part ended: %v", err)
	}
	began := time.Now()
	if _, err := bus.Call(ctx, cli, contract.ContactSetCmd, &contract.ContactChange{ID: jami.HashKey("another").String(), Change: "add"}); err != nil {
		t.Error(err)
	}
	added, began, listed := time.Since(began), time.Now(), 0
	for q := new(contract.ContactQuery); ; {
		p, err := bus.Call(ctx, cli, contract.ContactList, q)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(p.Contacts)
		if q.After = p.Next; q.After == "" {
			break
		}
	}
	if listed != contacts+1 {
		t.Errorf("%d are listed", listed)
	}
	t.Logf("%d bytes in %d parts; one more contact took %s, the list %s", len(cipher), parts, added, time.Since(began))
}
