//go:build interop

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/services/connect/web"
	pages "github.com/parley-jami/parley/web"
)

// manyAccounts is an account server with so many accounts, each with two devices.
type manyAccounts struct {
	mu      sync.Mutex
	list    []jams.Account
	changes int64
}

func newManyAccounts(n int) *manyAccounts {
	m := &manyAccounts{changes: 1}
	for i := range n {
		m.list = append(m.list, jams.Account{Name: fmt.Sprintf("user-%05d", i), DisplayName: fmt.Sprintf("Person %d", i), JamiID: jami.HashKey(fmt.Sprint(i)).String(),
			Created: time.Now(), Devices: []jams.AccountDevice{
				{Device: jams.Device{ID: fmt.Sprintf("%064x", 2*i), Alias: "laptop"}, Created: time.Now()},
				{Device: jams.Device{ID: fmt.Sprintf("%064x", 2*i+1), Alias: "phone"}, Created: time.Now(), Revoked: time.Now()},
			}})
	}
	return m
}

func (m *manyAccounts) Summary(context.Context) (jams.Summary, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return jams.Summary{Accounts: len(m.list), Devices: len(m.list), Changes: m.changes}, nil
}

func (m *manyAccounts) Accounts(_ context.Context, query, after string, limit int) (jams.AccountPage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := []jams.Account{}
	for _, a := range m.list {
		if strings.Contains(a.Name, query) {
			found = append(found, a)
		}
	}
	p := jams.AccountPage{Total: len(found)}
	i := sort.Search(len(found), func(i int) bool { return found[i].Name > after })
	p.Accounts = found[i:min(i+limit, len(found))]
	if i+limit < len(found) {
		p.Next = found[i+limit-1].Name
	}
	return p, nil
}

func (m *manyAccounts) RevokeAccount(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.list {
		if m.list[i].Name == name {
			m.list[i].Revoked = time.Now()
			m.changes++
			return nil
		}
	}
	return jams.ErrNotFound
}

func (m *manyAccounts) RevokeDevice(context.Context, string, jami.LongID) error {
	return errors.New("not asked for")
}

// noNode is a node of which nobody answers.
type noNode struct{}

func (noNode) Do(context.Context, web.Command) (json.RawMessage, error) {
	return nil, &web.Refusal{Code: "unavailable", Message: "nobody is here"}
}

// Ten thousand accounts on the operator's page: it shows a page of them, turns pages
// by mouse and keyboard, and finds one.
func TestOperatorsPageWithManyAccounts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const token = "0123456789abcdef"
	org := newManyAccounts(10_000)
	srv, err := web.New(web.Config{Node: noNode{}, Log: zap.NewNop(), Registry: prometheus.NewRegistry(), Name: "connect", Plain: l, Pages: pages.Files,
		SessionKey: make([]byte, 32), OperatorToken: token, Ready: func() bool { return true }, Endpoints: func() any { return struct{}{} }, Organisation: org})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	o := &organisation{t: t, b: startBrowser(t, 440)}
	if err := o.b.do(map[string]any{"do": "visit", "url": "http://" + l.Addr().String() + "/operator#" + token}, nil); err != nil {
		t.Fatal(err)
	}
	shows := func(what, first, words string) {
		t.Helper()
		o.waits(what, fmt.Sprintf(`document.querySelector("#org-table tbody")?.dataset.account === %q && document.querySelector("#org-count").innerText === %q`, first, words))
	}
	shows("the first page", "user-00000", "50 of 10,000 accounts")
	o.waits("no way back", `document.querySelector("#org-previous").disabled && document.querySelectorAll("#org-table tbody").length === 50`)
	o.shot("many")
	o.click("#org-next")
	shows("the second page", "user-00050", "50 of 10,000 accounts")
	o.waits("the keyboard's place is kept", `document.activeElement.id === "org-title"`)
	o.click("#org-previous")
	shows("the first page again", "user-00000", "50 of 10,000 accounts")

	find := func(words string) {
		o.eval(fmt.Sprintf(`{ const s = document.querySelector("#org-search"); s.focus(); s.value = %q; s.dispatchEvent(new Event("input")); }`, words), nil)
	}
	find("user-077")
	shows("what is found", "user-07700", "50 of 100 accounts found")
	find("user-07777")
	shows("who is found", "user-07777", "1 account found")
	o.waits("the search keeps the focus", `document.activeElement.id === "org-search"`)
	find("nobody")
	o.waits("nobody", `document.querySelector("#org-count").innerText === "Nobody is found." && document.querySelector("#org-table").closest(".table-wrap").hidden`)
	find("user-07777")
	shows("who is found again", "user-07777", "1 account found")
	o.click(`#org-table button[aria-label="Revoke the account of user-07777"]`)
	o.click("#confirm-yes")
	o.waits("the account is revoked, and the search stands", `document.querySelector('tbody[data-account="user-07777"] .group .bad') && document.querySelector("#org-count").innerText === "1 account found"`)
	o.waits("the focus is not lost", `document.activeElement !== document.body`)
}
