package account

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

func inboxOf(t testing.TB, a *Account) *Inbox {
	t.Helper()
	i, err := a.OpenInbox()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestRequestsAreKept(t *testing.T) {
	_, a := create(t)
	i := inboxOf(t, a)
	now := time.Unix(1_800_000_000, 0)
	alice, bob := jami.HashKey("alice"), jami.HashKey("bob")
	card := jami.VCard("Alice")
	add := func(id jami.ID, r jami.PendingRequest) []jami.ID {
		t.Helper()
		news, err := i.AddRequests(map[jami.ID]jami.PendingRequest{id: r}, now)
		if err != nil {
			t.Fatal(err)
		}
		return news
	}
	if news := add(alice, jami.PendingRequest{Received: 100, Payload: card}); !slices.Equal(news, []jami.ID{alice}) {
		t.Errorf("%v", news)
	}
	if news := add(alice, jami.PendingRequest{Received: 200}); len(news) != 0 {
		t.Errorf("%v", news)
	}
	// Another device received it earlier, and does not tell the payload.
	add(alice, jami.PendingRequest{Received: 50, ConversationID: "c"})
	for _, x := range []*Inbox{i, inboxOf(t, a)} {
		if r, ok := x.Request(alice); !ok || r.Received != 50 || r.ConversationID != "c" || string(r.Payload) != string(card) {
			t.Errorf("%+v, %v", r, ok)
		}
	}
	for _, id := range []jami.ID{a.Chain.JamiID, {}} {
		if news := add(id, jami.PendingRequest{Received: 1}); len(news) != 0 {
			t.Errorf("%s asks", id)
		}
	}
	if news := add(bob, jami.PendingRequest{Received: now.Add(48 * time.Hour).Unix()}); len(news) != 0 {
		t.Error("one of the day after tomorrow is taken")
	}
	// What is answered goes, and comes back with a later request alone.
	if _, err := a.ChangeContact(alice, Refuse, time.Unix(60, 0)); err != nil {
		t.Fatal(err)
	}
	if some, err := i.Settle(); err != nil || !some || len(inboxOf(t, a).requests) != 0 {
		t.Errorf("%v, %v", some, err)
	}
	if some, err := i.Settle(); err != nil || some {
		t.Errorf("%v, %v", some, err)
	}
	if news := add(alice, jami.PendingRequest{Received: 60}); len(news) != 0 {
		t.Error("an answered request is new")
	}
	if news := add(alice, jami.PendingRequest{Received: 61}); len(news) != 1 {
		t.Error("a later request is not new")
	}
}

func TestRequestsAreBounded(t *testing.T) {
	_, a := create(t)
	i := inboxOf(t, a)
	now := time.Now()
	came := map[jami.ID]jami.PendingRequest{}
	payload := make([]byte, jami.MaxPayload)
	for n := range maxPending {
		came[jami.HashKey(strconv.Itoa(n))] = jami.PendingRequest{Received: int64(n + 1), Payload: payload}
	}
	if news, err := i.AddRequests(came, now); err != nil || len(news) != maxPending {
		t.Fatalf("%d, %v", len(news), err)
	}
	size := 0
	for _, r := range i.Requests() {
		size += len(r.Payload)
	}
	if size > maxPayloads || size < maxPayloads-jami.MaxPayload {
		t.Errorf("%d bytes of payload", size)
	}
	more := map[jami.ID]jami.PendingRequest{jami.HashKey("one more"): {Received: 1}, jami.HashKey("0"): {Received: 0}}
	news, err := i.AddRequests(more, now)
	if r, _ := i.Request(jami.HashKey("0")); !errors.Is(err, ErrManyPending) || len(news) != 0 || r.Received != 0 {
		t.Errorf("%v, %v, %+v", news, err, r)
	}
	if n := len(inboxOf(t, a).Requests()); n != maxPending {
		t.Errorf("%d are in the file", n)
	}
}

func TestARequestThatCannotBeWritten(t *testing.T) {
	_, a := create(t)
	i := inboxOf(t, a)
	a.Dir += "-gone"
	if _, err := i.AddRequests(map[jami.ID]jami.PendingRequest{jami.HashKey("a"): {Received: 1}}, time.Now()); err == nil || len(i.Requests()) != 0 {
		t.Errorf("%v, %+v", err, i.Requests())
	}
	if err := i.SetDate(jami.LongID{1}, 5); err == nil || i.CheckDate(jami.LongID{1}, 5, time.Now()) != nil {
		t.Errorf("%v", err)
	}
	i.Treat(Digest{1})
	if err := i.Flush(); err == nil {
		t.Error("written to nowhere")
	}
	a.Dir = strings.TrimSuffix(a.Dir, "-gone")
	if err := i.Flush(); err != nil || !inboxOf(t, a).Treated(Digest{1}) {
		t.Errorf("%v", err)
	}
}

func TestDatesOfDevices(t *testing.T) {
	_, a := create(t)
	i := inboxOf(t, a)
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) uint64 { return uint64(now.Add(d).UnixNano()) }
	x, y := jami.LongID{1}, jami.LongID{2}
	if err := i.SetDate(x, at(0)); err != nil {
		t.Fatal(err)
	}
	if err := i.SetDate(x, at(-time.Hour)); err != nil { // changes nothing
		t.Fatal(err)
	}
	for _, in := range []*Inbox{i, inboxOf(t, a)} {
		for _, c := range []struct {
			from jami.LongID
			date uint64
			want error
		}{
			{x, 0, ErrOldSync}, {x, at(-time.Second), ErrOldSync}, {x, at(0), ErrOldSync}, {x, at(1), nil}, {x, at(23 * time.Hour), nil},
			{x, at(25 * time.Hour), ErrAhead}, {x, 1<<64 - 1, ErrAhead}, {y, 1, nil}, {y, 0, ErrOldSync},
		} {
			if err := in.CheckDate(c.from, c.date, now); !errors.Is(err, c.want) {
				t.Errorf("%d: %v, want %v", c.date, err, c.want)
			}
		}
	}
	// The clock is set back: this device's own date grows all the same.
	last := uint64(0)
	for _, clock := range []time.Time{now, now, now.Add(-time.Hour), now.Add(-time.Hour), time.Unix(-1, 0), now.Add(time.Second)} {
		date, err := inboxOf(t, a).NextDate(clock)
		if err != nil || date <= last {
			t.Fatalf("%d after %d, %v", date, last, err)
		}
		last = date
	}
	if last != at(time.Second) {
		t.Errorf("%d, want %d", last, at(time.Second))
	}
}

func TestTreatedIsBounded(t *testing.T) {
	_, a := create(t)
	i := inboxOf(t, a)
	d := func(n int) (d Digest) { d[0], d[1] = byte(n), byte(n>>8); return d }
	for n := range maxTreated + 10 {
		i.Treat(d(n))
		i.Treat(d(n))
	}
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*Inbox{i, inboxOf(t, a)} {
		if x.Treated(d(9)) || !x.Treated(d(10)) || !x.Treated(d(maxTreated+9)) || len(x.treated.has) != maxTreated {
			t.Errorf("%d are known", len(x.treated.has))
		}
	}
}

func TestMergeOfContacts(t *testing.T) {
	_, a := create(t)
	now := time.Unix(1_800_000_000, 0)
	id := jami.HashKey("x")
	if _, err := a.ChangeContact(id, Add, now); err != nil {
		t.Fatal(err)
	}
	before := a.Contacts()
	if changed, skipped, err := a.MergeContacts(before, now); err != nil || changed != nil || skipped != 0 {
		t.Errorf("its own state: %v, %d, %v", changed, skipped, err)
	}
	other := map[jami.ID]jami.Contact{id: {Added: 1, Removed: now.Unix() + 1}}
	if changed, _, err := a.MergeContacts(other, now); err != nil || !slices.Equal(changed, []jami.ID{id}) || a.Contacts()[id].Active() {
		t.Errorf("%v, %v, %+v", changed, err, a.Contacts())
	}
	// Removed there and added again here, in the same second: it is active for both.
	c, err := a.ChangeContact(id, Add, now)
	if err != nil || !c.Active() || !c.Merge(other[id]).Active() {
		t.Errorf("%+v, %v", c, err)
	}
	if changed, _, err := a.MergeContacts(other, now); err != nil || !a.Contacts()[id].Active() {
		t.Errorf("%v, %v, %+v", changed, err, a.Contacts())
	}
	select {
	case <-a.ContactsChanged():
	default:
		t.Error("the archive is not told of it")
	}
	full(t, a)
	kept := len(a.Contacts())
	if changed, skipped, err := a.MergeContacts(map[jami.ID]jami.Contact{jami.HashKey("beyond"): {Added: 1}}, now); err != nil || changed != nil || skipped != 1 || len(a.Contacts()) != kept {
		t.Errorf("%v, %d, %v", changed, skipped, err)
	}
	a.Dir += "-gone"
	before = a.Contacts()
	for id = range before { // any that full left
		break
	}
	if _, _, err := a.MergeContacts(map[jami.ID]jami.Contact{id: {Removed: now.Unix() + 100, Banned: true}}, now); err == nil || !maps.Equal(before, a.Contacts()) {
		t.Errorf("%v", err)
	}
}

func TestAnswersOfRequests(t *testing.T) {
	_, a := create(t)
	now := time.Unix(1_800_000_000, 0)
	id := jami.HashKey("x")
	for i, x := range []struct {
		what              Change
		want              error
		active, confirmed bool
	}{
		{Confirm, ErrNoContact, false, false}, {Refuse, nil, false, false}, {Refuse, nil, false, false}, {Confirm, ErrNoContact, false, false},
		{Accept, nil, true, true}, {Refuse, ErrContact, true, true}, {Remove, nil, false, false}, {Add, nil, true, false}, {Confirm, nil, true, true},
		{Accept, nil, true, true}, {Block, nil, false, false}, {Refuse, nil, false, false}, {Add, nil, true, false}, {Accept, nil, true, true},
	} {
		c, err := a.AnswerContact(id, x.what, "conv", now)
		if !errors.Is(err, x.want) || err == nil && (c.Active() != x.active || c.Confirmed != x.confirmed) {
			t.Fatalf("%d, %s: %+v, %v", i, x.what, c, err)
		}
	}
	if c, _ := a.Contact(id); c.ConversationID != "conv" {
		t.Errorf("%+v", c)
	}
}

func TestNamesOfDevices(t *testing.T) {
	_, a := selfSigned(t)
	certs := second(t, a)
	if _, err := a.Learn(certs, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, other := jami.CertIDs(certs[0])
	name := func() string {
		for _, d := range a.Devices() {
			if d.ID == other {
				return d.Name
			}
		}
		return ""
	}
	for i, x := range []struct {
		from       jami.LongID
		says, want string
	}{
		{jami.LongID{9}, "Heard", "Heard"}, {jami.LongID{9}, "Heard too", "Heard"}, {other, "", "Heard"}, {other, "Own", "Own"}, {jami.LongID{9}, "Late", "Own"},
	} {
		was := name()
		news, err := a.LearnNames(x.from, map[jami.LongID]jami.SyncDevice{other: {Name: x.says}, {7}: {Name: "unknown"}, a.Chain.DeviceID: {Name: "me"}}, time.Now())
		if err != nil || name() != x.want || news != (was != x.want) {
			t.Errorf("%d: %q, %v, %v", i, name(), news, err)
		}
	}
	if me := a.Devices()[0]; me.Name == "me" {
		t.Error("others name this device")
	}
}

func TestDamagedInboxFiles(t *testing.T) {
	_, a := create(t)
	for name, bad := range map[string]string{fileRequests: "\x81", fileTreated: "xyz\n", fileDates: "{"} {
		path := filepath.Join(a.Dir, name)
		old, readErr := os.ReadFile(path)
		if err := os.WriteFile(path, []byte(bad), fileMode); err != nil {
			t.Fatal(err)
		}
		_, err := a.OpenInbox()
		if d, ok := errors.AsType[*DamagedError](err); !ok || d.Path != path {
			t.Errorf("%s: %v", name, err)
		}
		if readErr == nil {
			err = os.WriteFile(path, old, fileMode)
		} else {
			err = os.Remove(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	inboxOf(t, a)
}

func FuzzInboxFiles(f *testing.F) {
	f.Add([]byte(strings.Repeat("ab", 32) + "\n" + strings.Repeat("cd", 32) + "\n"))
	f.Add([]byte(`{"` + strings.Repeat("ab", 32) + `":1800000000000000000}`))
	f.Add([]byte("junk"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x treated
		if x.parse(b) == nil {
			var y treated
			if err := y.parse(x.pack()); err != nil || !slices.Equal(x.order, y.order) {
				t.Errorf("%v", err)
			}
		}
		i := &Inbox{dates: map[jami.LongID]uint64{}}
		if i.parseDates(b) == nil && len(i.dates) > maxDevices+1 {
			t.Errorf("%d devices", len(i.dates))
		}
	})
}
