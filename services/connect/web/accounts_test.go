package web

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

var (
	someAccount = strings.Repeat("ab", 20)
	someDevice  = strings.Repeat("cd", 32)
)

func TestAccountsOfTheNode(t *testing.T) {
	r := start(t)
	auth := []string{"Authorization", "Bearer " + opToken}
	who := strings.Repeat("01", 20)
	for _, tc := range []struct{ method, path, body, command, asked string }{
		{"PUT", "", `{"alias":"South"}`, "account.set", `{"alias":"South"}`},
		{"GET", "/devices", "", "device.list", `{}`},
		{"DELETE", "/devices/" + someDevice, "", "device.revoke", `{"device":"` + someDevice + `"}`},
		{"GET", "/contacts", "", "contact.list", `{"limit":50}`},
		{"GET", "/contacts?limit=200&after=" + who, "", "contact.list", `{"after":"` + who + `","limit":200}`},
		{"POST", "/contacts", `{"id":"` + who + `","change":"block"}`, "contact.set", `{"change":"block","id":"` + who + `"}`},
		{"GET", "/requests", "", "request.list", `{}`},
		{"POST", "/requests", `{"id":"` + who + `","answer":"accept"}`, "request.answer", `{"answer":"accept","id":"` + who + `"}`},
	} {
		t.Run(tc.method+tc.path, func(t *testing.T) {
			before := r.node.count(tc.command)
			path := "/api/v1/accounts/" + someAccount + tc.path
			for _, wrong := range [][]string{nil, {"Authorization", "Bearer x"}} {
				if res, _ := r.request(t, tc.method, path, tc.body, wrong...); res.StatusCode != 401 {
					t.Fatalf("with %v: %s", wrong, res.Status)
				}
			}
			if tc.method != "GET" {
				if res, _ := r.request(t, tc.method, path, tc.body, append(auth, "Sec-Fetch-Site", "cross-site")...); res.StatusCode != 403 {
					t.Errorf("from another site: %s", res.Status)
				}
				if res, _ := r.request(t, tc.method, path, tc.body, append(auth, "Idempotency-Key", "a b")...); res.StatusCode != 400 {
					t.Errorf("with a bad key: %s", res.Status)
				}
			}
			bad := strings.Replace(path, someAccount, "x", 1)
			if res, body := r.request(t, tc.method, bad, tc.body, auth...); res.StatusCode != 400 || !strings.Contains(body, "40 hex") {
				t.Errorf("of no account: %s %s", res.Status, body)
			}
			if n := r.node.count(tc.command); n != before {
				t.Fatalf("the node was asked %d times meanwhile", n-before)
			}
			res, body := r.request(t, tc.method, path, tc.body, append(auth, "Idempotency-Key", "k1")...)
			if res.StatusCode != 200 {
				t.Fatalf("%s %s", res.Status, body)
			}
			cmd := r.node.saw(t, tc.command)
			asked, err := json.Marshal(cmd.Body)
			if err != nil || cmd.Account != someAccount || string(asked) != tc.asked {
				t.Errorf("asked %s of %q, %v", asked, cmd.Account, err)
			}
			if tc.method != "GET" && cmd.Key != "k1" {
				t.Errorf("with the key %q", cmd.Key)
			}
			if _, sealed := cmd.Body.(*contract.Secret); sealed != (tc.command == "device.revoke") {
				t.Errorf("sealed: %v", sealed)
			}
		})
	}
	for path, words := range map[string]string{
		"/contacts?limit=201":                        "1 to 200",
		"/contacts?limit=0":                          "1 to 200",
		"/contacts?limit=x":                          "1 to 200",
		"/contacts?after=x":                          "40 hex",
		"/contacts?query=xyz":                        "beginning",
		"/contacts?query=" + strings.Repeat("a", 41): "beginning",
	} {
		if res, body := r.request(t, "GET", "/api/v1/accounts/"+someAccount+path, "", auth...); res.StatusCode != 400 || !strings.Contains(body, words) {
			t.Errorf("%s: %s %s", path, res.Status, body)
		}
	}
	if res, body := r.request(t, "DELETE", "/api/v1/accounts/"+someAccount+"/devices/abc", "", auth...); res.StatusCode != 400 || !strings.Contains(body, "64 hex") {
		t.Errorf("no device: %s %s", res.Status, body)
	}
	for _, body := range []string{`{`, `null`, `[]`, `{"id":"` + strings.Repeat("a", maxAPI) + `"}`} {
		if res, _ := r.request(t, "POST", "/api/v1/accounts/"+someAccount+"/contacts", body, auth...); res.StatusCode != 400 {
			t.Errorf("%.20s: %s", body, res.Status)
		}
	}
	r.node.set("contact.set", &Refusal{Code: "not_found", Message: "that is no contact"})
	if res, body := r.request(t, "POST", "/api/v1/accounts/"+someAccount+"/contacts", `{}`, auth...); res.StatusCode != 404 || !strings.Contains(body, "no contact") {
		t.Errorf("refusal: %s %s", res.Status, body)
	}
}

func TestQRCodeOfAnAccount(t *testing.T) {
	r := start(t)
	path := "/api/v1/accounts/" + someAccount + "/qr"
	if res, _ := r.request(t, "GET", path, ""); res.StatusCode != 401 {
		t.Errorf("without the token: %s", res.Status)
	}
	res, body := r.request(t, "GET", path, "", "Authorization", "Bearer "+opToken)
	var v struct {
		Title string `xml:"title"`
	}
	if err := xml.Unmarshal([]byte(body), &v); err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "image/svg+xml" || !strings.Contains(v.Title, someAccount) {
		t.Errorf("%s %v %v %q", res.Status, res.Header, err, v.Title)
	}
	if res, _ := r.request(t, "GET", "/api/v1/accounts/%3Cb%3E/qr", "", "Authorization", "Bearer "+opToken); res.StatusCode != 400 {
		t.Errorf("of no account: %s", res.Status)
	}
}

// Who looks for a contact reads on from the first id that begins so, and no further than
// the last.
func TestContactsAreFoundByTheBeginning(t *testing.T) {
	r := start(t)
	id := func(begin string) string { return begin + strings.Repeat("0", 40-len(begin)) }
	for _, tc := range []struct{ query, after string }{
		{"", ""}, {"0", ""}, {"00", ""}, {"1", "0" + strings.Repeat("f", 39)}, {"a0", "9" + strings.Repeat("f", 39)},
		{"jami:AB", "aa" + strings.Repeat("f", 38)}, {strings.Repeat("a", 40), strings.Repeat("a", 39) + "9"}, {"0001", "0000" + strings.Repeat("f", 36)},
	} {
		r.node.reply("contact.list", fmt.Sprintf(`{"contacts":[{"id":%q},{"id":%q}],"next":%q,"total":9,"revision":1}`, id("ab0"), id("ac"), id("ac")))
		res, body := r.request(t, "GET", "/api/v1/accounts/"+someAccount+"/contacts?query="+tc.query, "", "Authorization", "Bearer "+opToken)
		if res.StatusCode != 200 {
			t.Fatalf("%s %s", res.Status, body)
		}
		cmd := r.node.saw(t, "contact.list")
		if got := cmd.Body.(contract.ContactQuery).After; got != tc.after {
			t.Errorf("%q: after %q, want %q", tc.query, got, tc.after)
		}
		var page contract.Contacts
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"": 2, "jami:AB": 1}[tc.query]
		if len(page.Contacts) != want || (page.Next == "") != (want < 2) || page.Total != 9 {
			t.Errorf("%q: %+v", tc.query, page)
		}
	}
}

// Contacts come with who of them is online, and without that where it is not known.
func TestContactsWithTheirPresence(t *testing.T) {
	r := start(t)
	id := func(c string) string { return strings.Repeat(c, 40) }
	r.node.reply("contact.list", fmt.Sprintf(`{"contacts":[{"id":%q,"active":true},{"id":%q,"active":true},{"id":%q}],"total":3}`, id("1"), id("2"), id("3")))
	ask := func() (page contactPage) {
		t.Helper()
		res, body := r.request(t, "GET", "/api/v1/accounts/"+someAccount+"/contacts", "", "Authorization", "Bearer "+opToken)
		if err := json.Unmarshal([]byte(body), &page); err != nil || res.StatusCode != 200 || len(page.Contacts.Contacts) != 3 {
			t.Fatalf("%s %s %v", res.Status, body, err)
		}
		return page
	}
	r.node.reply("presence.list", fmt.Sprintf(`{"contacts":[{"id":%q,"online":true,"since":7},{"id":%q},{"id":%q}]}`, id("1"), id("3"), id("4")))
	if p := ask().Presence; len(p) != 1 || !p[id("1")].Online || p[id("1")].Since != 7 {
		t.Errorf("%+v", p)
	}
	r.node.set("presence.list", &Refusal{Code: "unavailable", Message: "dht is away", Retry: true})
	if p := ask().Presence; p != nil {
		t.Errorf("%+v", p)
	}
}

// The live state has a number for each account, which is another one after each change of
// it, and is never one of an earlier start.
func TestChangesOfAccountsInTheLiveState(t *testing.T) {
	r := start(t)
	other := strings.Repeat("cd", 20)
	r.node.reply("identity.state", fmt.Sprintf(`{"account":{"id":%q},"accounts":[{"id":%q},{"id":%q}],"seal_key":"c2VjcmV0"}`, someAccount, someAccount, other))
	numbers := func() map[string]int64 {
		_, body := r.request(t, "GET", "/api/v1/status", "", "Authorization", "Bearer "+opToken)
		var st state
		if err := json.Unmarshal([]byte(body), &st); err != nil || len(st.Changes) != 2 || strings.Contains(body, "seal_key") {
			t.Fatalf("%s %v", body, err)
		}
		return st.Changes
	}
	first := numbers()
	r.s.AccountChanged(other)
	second := numbers()
	if second[someAccount] != first[someAccount] || second[other] == first[other] {
		t.Errorf("%v, then %v", first, second)
	}
	r.s.AccountChanged("")
	third := numbers()
	if third[someAccount] == second[someAccount] || third[other] == second[other] {
		t.Errorf("%v, then %v", second, third)
	}
}
