package web

import (
	"context"
	"encoding/json"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/qr"
)

// contactsPage is how many contacts a request gets that does not say, and contactsMax how
// many it may ask for.
const (
	contactsPage = 50
	contactsMax  = 200
)

// archiveLimit is for what changes an archive, which may stretch a password.
const archiveLimit = 30 * time.Second

// routeAccounts serves what the operator sees and does of each of the node's accounts.
func (s *Server) routeAccounts(op func(pattern string, fn http.HandlerFunc)) {
	const at = " /api/v1/accounts/{account}"
	op("PUT"+at, s.ofAccount("account.set", commandLimit))
	op("GET"+at+"/qr", accountQR)
	op("GET"+at+"/devices", s.ofAccount("device.list", commandLimit))
	op("DELETE"+at+"/devices/{device}", s.revokeDevice)
	op("GET"+at+"/contacts", s.contacts)
	op("POST"+at+"/contacts", s.ofAccount("contact.set", archiveLimit))
	op("GET"+at+"/requests", s.ofAccount("request.list", commandLimit))
	op("POST"+at+"/requests", s.ofAccount("request.answer", archiveLimit))
}

// accountOf returns the account in a request's path.
func accountOf(r *http.Request) (string, error) {
	id, err := jami.ParseID(r.PathValue("account"))
	if err != nil {
		return "", badRequest("an account's Jami Id has 40 hex digits")
	}
	return id.String(), nil
}

// ofAccount passes a JSON body on as a command to an account.
func (s *Server) ofAccount(name string, within time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		account, err := accountOf(r)
		if err != nil {
			fail(w, err)
			return
		}
		body, key, err := orderOf(w, r)
		if err != nil {
			fail(w, err)
			return
		}
		s.pass(w, r, http.StatusOK, Command{Name: name, Account: account, Body: body, Key: key}, within)
	}
}

// accountQR answers with the code that a Jami client scans to add the account.
func accountQR(w http.ResponseWriter, r *http.Request) {
	account, err := accountOf(r)
	if err != nil {
		fail(w, err)
		return
	}
	svg, err := qr.SVG("jami:"+account, "QR code of the Jami Id "+account)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Cache-Control", "no-store")
	w.Write([]byte(svg))
}

// revokeDevice works where identity can open the archive: no password comes this way.
func (s *Server) revokeDevice(w http.ResponseWriter, r *http.Request) {
	account, err := accountOf(r)
	if err != nil {
		fail(w, err)
		return
	}
	device, err := jams.ParseDeviceID(r.PathValue("device"))
	if err != nil {
		fail(w, badRequest("a device's id has 64 hex digits"))
		return
	}
	_, key, err := orderOf(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	s.pass(w, r, http.StatusOK, Command{Name: "device.revoke", Account: account, Key: key, Body: &contract.Secret{Device: device.String()}}, archiveLimit)
}

// contacts answers with a page of the list, which is sorted by id: who looks for one gives
// the beginning of its id.
func (s *Server) contacts(w http.ResponseWriter, r *http.Request) {
	page, err := s.contactsOf(r)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, http.StatusOK, page)
}

// contactPage is a page of the list with who of those on it is online. Nil: dht does not
// answer now.
type contactPage struct {
	*contract.Contacts
	Presence map[string]contract.Presence `json:"presence,omitempty"` // by Jami Id; not in it: it is not known
}

func (s *Server) contactsOf(r *http.Request) (*contactPage, error) {
	account, err := accountOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	begin := strings.ToLower(strings.TrimPrefix(q.Get("query"), "jami:"))
	if len(begin) > 40 || strings.Trim(begin, "0123456789abcdef") != "" {
		return nil, badRequest("a contact is found by the beginning of its Jami Id: up to 40 hex digits")
	}
	ask := contract.ContactQuery{After: q.Get("after"), Limit: contactsPage}
	if ask.After == "" {
		ask.After = before(begin)
	} else if _, err := jami.ParseID(ask.After); err != nil {
		return nil, badRequest("after is a Jami Id, 40 hex digits")
	}
	if l := q.Get("limit"); l != "" {
		if ask.Limit, err = strconv.Atoi(l); err != nil || ask.Limit < 1 || ask.Limit > contactsMax {
			return nil, badRequest("limit is a number from 1 to 200")
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandLimit)
	defer cancel()
	data, err := s.node.Do(ctx, Command{Name: "contact.list", Account: account, Body: ask})
	if err != nil {
		return nil, err
	}
	page := new(contract.Contacts)
	if err := json.Unmarshal(data, page); err != nil {
		return nil, err
	}
	for i, c := range page.Contacts {
		if !strings.HasPrefix(c.ID, begin) {
			page.Contacts, page.Next = page.Contacts[:i], ""
			break
		}
	}
	return &contactPage{page, s.presenceOf(ctx, account, page.Contacts)}, nil
}

// presenceOf asks who of some contacts is online; nil: that is not known now.
func (s *Server) presenceOf(ctx context.Context, account string, contacts []contract.Contact) map[string]contract.Presence {
	data, err := s.node.Do(ctx, Command{Name: "presence.list", Account: account, Body: struct{}{}})
	var all contract.Presences
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		s.log.Debug("presence of contacts not read", zap.String("account", account), zap.Error(err))
		return nil
	}
	by := make(map[string]contract.Presence, len(all.Contacts))
	for _, p := range all.Contacts {
		by[p.ID] = p
	}
	out := map[string]contract.Presence{}
	for _, c := range contacts {
		if p, ok := by[c.ID]; ok && c.Active {
			out[c.ID] = p
		}
	}
	return out
}

// before returns the id just below the first that begins so; none is below them all.
func before(begin string) string {
	first, ok := new(big.Int).SetString(begin+strings.Repeat("0", 40-len(begin)), 16)
	if !ok || first.Sign() == 0 {
		return ""
	}
	text := first.Sub(first, big.NewInt(1)).Text(16)
	return strings.Repeat("0", 40-len(text)) + text
}

// changes counts, for each account, what was told of its devices, contacts and requests:
// a page reads again what it shows when the number is another one.
type changes struct {
	mu   sync.Mutex
	last int64            // begins with the time, so that no number comes again after a start
	of   map[string]int64 // by Jami Id
	all  int64            // for those not in of
}

func newChanges() *changes {
	c := &changes{last: time.Now().UnixMilli(), of: map[string]int64{}}
	c.all = c.last
	return c
}

// told notes a change of an account; "" is one of any of them.
func (c *changes) told(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	if account == "" {
		clear(c.of)
		c.all = c.last
		return
	}
	c.of[account] = c.last
}

// view returns the numbers of these accounts.
func (c *changes) view(accounts []string) map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int64, len(accounts))
	for _, a := range accounts {
		if n, ok := c.of[a]; ok {
			out[a] = n
		} else {
			out[a] = c.all
		}
	}
	return out
}

// AccountChanged has the operator's pages read an account's devices, contacts and
// requests again; "" is every account. It never waits.
func (s *Server) AccountChanged(account string) { s.changes.told(account) }
