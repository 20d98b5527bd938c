package web

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
)

// fakeOrganisation remembers what it was asked and fails when it is told to.
type fakeOrganisation struct {
	mu    sync.Mutex
	err   error
	asked []string
}

func (f *fakeOrganisation) did(words ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, strings.Join(words, " "))
	return f.err
}

func (f *fakeOrganisation) fails(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeOrganisation) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return ""
	}
	return f.asked[len(f.asked)-1]
}

func (f *fakeOrganisation) Summary(context.Context) (jams.Summary, error) {
	return jams.Summary{Accounts: 3, Devices: 5, Changes: 7}, f.did("summary")
}

func (f *fakeOrganisation) Accounts(_ context.Context, query, after string, limit int) (jams.AccountPage, error) {
	return jams.AccountPage{Accounts: []jams.Account{{Name: "alice"}}, Total: limit}, f.did("accounts", query, after)
}

func (f *fakeOrganisation) RevokeAccount(_ context.Context, name string) error {
	return f.did("revoke", name)
}

func (f *fakeOrganisation) RevokeDevice(_ context.Context, name string, id jami.LongID) error {
	return f.did("revoke", name, id.String())
}

func TestOrganisation(t *testing.T) {
	org := &fakeOrganisation{}
	r := start(t, func(c *Config) { c.Organisation = org })
	auth := []string{"Authorization", "Bearer " + opToken}
	id := strings.Repeat("ab", 32)
	for _, tc := range []struct {
		method, path string
		err          error
		want         int
		asked, body  string
	}{
		{"GET", "/accounts", nil, 200, "accounts  ", `"total":50`},
		{"GET", "/accounts?query=al&after=a&limit=7", nil, 200, "accounts al a", `"total":7`},
		{"GET", "/accounts?limit=101", nil, 400, "", "from 1 to 100"},
		{"GET", "/accounts?limit=x", nil, 400, "", "from 1 to 100"},
		{"DELETE", "/accounts/alice%2F..", nil, 204, "revoke alice/..", ""},
		{"DELETE", "/accounts/alice/devices/" + id, nil, 204, "revoke alice " + id, ""},
		{"DELETE", "/accounts/alice/devices/xyz", nil, 400, "", "64 hex digits"},
		{"DELETE", "/accounts/nobody", jams.ErrNotFound, 404, "revoke nobody", "no such account"},
		{"GET", "/accounts", jams.ErrUnavailable.Because(syscall.ECONNREFUSED), 503, "accounts  ", "does not answer"},
		{"GET", "/accounts", jams.ErrUnavailable.Because(fs.ErrNotExist), 503, "accounts  ", "no account server runs"},
		{"GET", "/accounts", jams.ErrUnavailable.Because(syscall.EACCES), 503, "accounts  ", "another user"},
		{"GET", "/accounts", jams.ErrUnavailable.Because(context.DeadlineExceeded), 504, "accounts  ", "too slow"},
		{"GET", "/accounts", errors.New("words for nobody"), 500, "accounts  ", "its log"},
	} {
		org.fails(tc.err)
		path := "/api/v1/organisation" + tc.path
		if res, _ := r.request(t, tc.method, path, ""); res.StatusCode != 401 {
			t.Errorf("%s %s without the token: %s", tc.method, tc.path, res.Status)
		}
		org.did("nothing")
		res, body := r.request(t, tc.method, path, "", auth...)
		if res.StatusCode != tc.want || !strings.Contains(body, tc.body) {
			t.Errorf("%s %s: %s %s", tc.method, tc.path, res.Status, body)
		}
		if got := org.last(); got != tc.asked && tc.asked != "" || tc.asked == "" && got != "nothing" {
			t.Errorf("%s %s: it was asked %q, want %q", tc.method, tc.path, got, tc.asked)
		}
	}
	if res, _ := r.request(t, "DELETE", "/api/v1/organisation/accounts/alice", "", append(auth, "Sec-Fetch-Site", "cross-site")...); res.StatusCode != 403 {
		t.Errorf("from another site: %s", res.Status)
	}
}

// The live state has the organisation only where there is one, and says when its
// server has died.
func TestOrganisationInTheLiveState(t *testing.T) {
	org := &fakeOrganisation{}
	for _, tc := range []struct {
		what string
		with Organisation
		err  error
		want string
	}{
		{"none is looked for", nil, nil, "null"},
		{"none runs", org, jams.ErrUnavailable.Because(fs.ErrNotExist), "null"},
		{"it runs", org, nil, `{"accounts":3,"devices":5,"changes":7}`},
		{"it has died", org, jams.ErrUnavailable.Because(syscall.ECONNREFUSED), `{"error":"the account server does not answer; its log says why"}`},
	} {
		org.fails(tc.err)
		r := start(t, func(c *Config) { c.Organisation = tc.with })
		_, body := r.request(t, "GET", "/api/v1/status", "", "Authorization", "Bearer "+opToken)
		var st struct{ Organisation json.RawMessage }
		if err := json.Unmarshal([]byte(body), &st); err != nil {
			t.Fatal(err)
		}
		if got := string(st.Organisation); got != tc.want && (tc.want != "null" || got != "") {
			t.Errorf("%s: %s, want %s", tc.what, got, tc.want)
		}
	}
}
