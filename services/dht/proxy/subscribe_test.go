package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
	"github.com/parley-jami/parley/services/dht/push"
)

// day is a proxy whose clock is moved by hand.
type day struct {
	*server
	*clock
	over *fake
	key  overlay.Key
}

func newDay(t *testing.T, file string, over *fake, at time.Time) *day {
	t.Helper()
	c := &clock{at: at}
	return &day{server: serve(t, Options{Overlay: over, Now: c.now, File: file}), clock: c, over: over, key: overlay.Key(jami.HashKey("foo"))}
}

var morning = time.Date(2026, 5, 4, 6, 0, 0, 0, time.UTC)

// later moves the clock and has done what is due.
func (d *day) later(by time.Duration) {
	d.move(by)
	d.tick(d.now())
}

// watched waits until the key is watched for so many clients.
func (d *day) watched(t *testing.T, n int) {
	t.Helper()
	wait(t, "the key is watched", func() (bool, any) { w := d.watchers(d.key); return w == n, w })
}

func (d *day) value(id uint64, data string) overlay.Value {
	return overlay.Value{Key: d.key, ID: id, Type: 3, Data: []byte(data)}
}

// expect looks for just these notices, and forgets them.
func (d *day) expect(t *testing.T, what string, want ...proxyjson.Notice) {
	t.Helper()
	wait(t, what, func() (bool, any) {
		got := d.push.notices(t)
		return len(got) >= len(want), got
	})
	got := d.push.notices(t)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
	d.push.mu.Lock()
	d.push.sent = nil
	d.push.mu.Unlock()
}

const one = `{"key":"https://push.example.org/1","client_id":"c1","session_id":"abcdefgh","platform":"unifiedpush"}`

func change(d *day, exp uint64) proxyjson.Notice {
	return proxyjson.Notice{Key: hexKey(d.key), To: "c1", Session: "abcdefgh", Time: d.now().UnixMilli(), Expired: exp}
}

// A client is woken up, once for a burst, with nothing of the values.
func TestWakeUps(t *testing.T) {
	d := newDay(t, "", &fake{}, morning)
	if got := d.must(t, "SUBSCRIBE", "/key/foo", one); got != "{}\n" {
		t.Errorf("new: %q", got)
	}
	d.watched(t, 1)
	d.later(time.Minute)
	d.expect(t, "nothing is there, nothing is told")

	for i := range 20 {
		d.over.change(d.key, overlay.Change{Value: d.value(uint64(i+1), "secret")})
	}
	d.tick(d.now())
	d.expect(t, "a burst may go on")
	d.later(coalesce)
	d.expect(t, "a burst is one notice", change(d, 0))

	d.over.change(d.key, overlay.Change{Value: d.value(1, "secret"), Expired: true})
	d.later(coalesce)
	d.expect(t, "not so soon after the last")
	d.later(quiet)
	d.expect(t, "one that expired is named", change(d, 1))

	d.later(time.Minute)
	d.over.change(d.key, overlay.Change{Value: d.value(2, "secret"), Expired: true})
	d.over.change(d.key, overlay.Change{Value: d.value(3, "secret"), Expired: true})
	d.later(coalesce)
	d.expect(t, "of several the client asks", change(d, 0))

	d.later(time.Minute)
	refresh := strings.Replace(one, `"session_id":"abcdefgh"`, `"session_id":"new","refresh":true`, 1)
	if got := d.must(t, "SUBSCRIBE", "/key/foo", refresh); got != "{}\n" {
		t.Errorf("refresh: %q", got)
	}
	if got := values(t, d.must(t, "SUBSCRIBE", "/key/foo", one)); len(got) != 17 || !got[`{"data":"c2VjcmV0","id":"20","type":3}`] {
		t.Errorf("again: %v", got)
	}
	if got := d.must(t, "UNSUBSCRIBE", "/key/foo", one); got != "" {
		t.Errorf("unsubscribed: %q", got)
	}
	if c := d.Counts(); c.Subscriptions != 0 || c.Keys != 0 {
		t.Errorf("%+v", c)
	}
	d.must(t, "UNSUBSCRIBE", "/key/foo", one) // no error
	d.over.change(d.key, overlay.Change{Value: d.value(99, "secret")})
	d.later(time.Hour)
	d.expect(t, "no longer told")
}

// What is there when a client subscribes is told, for the answer has none of it.
func TestWakeUpForWhatIsThere(t *testing.T) {
	d := newDay(t, "", &fake{}, morning)
	d.over.change(d.key, overlay.Change{Value: d.value(1, "secret")})
	d.must(t, "SUBSCRIBE", "/key/foo", one)
	d.watched(t, 1)
	wait(t, "it is to be told", func() (bool, any) {
		d.later(coalesce)
		return len(d.push.notices(t)) == 1, nil
	})
}

// A subscription lasts a day; before its end the client is told, once.
func TestSubscriptionEnds(t *testing.T) {
	d := newDay(t, "", &fake{}, morning)
	d.must(t, "SUBSCRIBE", "/key/foo", one)
	d.watched(t, 1)
	d.later(keepTime - noticeTime - time.Second)
	d.expect(t, "too early")
	d.later(time.Second)
	end := proxyjson.Notice{Timeout: hexKey(d.key), To: "c1", Session: "abcdefgh"}
	d.expect(t, "it ends soon", end)
	d.later(time.Hour)
	d.expect(t, "told once")
	d.must(t, "SUBSCRIBE", "/key/foo", strings.Replace(one, "{", `{"refresh":true,`, 1))
	d.later(keepTime - noticeTime)
	d.expect(t, "the next day", end)
	d.later(noticeTime)
	if c := d.Counts(); c.Subscriptions != 0 || c.Keys != 0 {
		t.Errorf("after its end: %+v", c)
	}
}

// A permanent value lasts a day, unless it is put again, and before its end its client is
// told.
func TestPermanentEnds(t *testing.T) {
	d := newDay(t, "", &fake{}, morning)
	const with = `{"data":"","id":"7","permanent":` + one + `}`
	d.must(t, "POST", "/key/foo", with)
	d.must(t, "POST", "/key/foo", `{"data":"","id":"8","permanent":true}`)
	d.must(t, "POST", "/key/foo", `{"data":"","id":"9"}`)
	d.later(11 * time.Minute)
	if c := d.Counts(); c.Puts != 2 {
		t.Errorf("the lifetime of the third is over: %+v", c)
	}
	d.later(keepTime - noticeTime - 11*time.Minute)
	d.expect(t, "it ends soon", proxyjson.Notice{Timeout: hexKey(d.key), To: "c1", Session: "abcdefgh", Value: 7})
	d.must(t, "POST", "/key/foo", with)
	d.later(noticeTime)
	wait(t, "the other has ended", func() (bool, any) {
		d.over.mu.Lock()
		defer d.over.mu.Unlock()
		return fmt.Sprint(d.over.cancelled) == "[8]", d.over.cancelled
	})
	if c := d.Counts(); c.Puts != 1 {
		t.Errorf("%+v", c)
	}
	if !d.over.permanent[7] || !d.over.permanent[8] || d.over.permanent[9] {
		t.Errorf("%v", d.over.permanent)
	}
}

// Subscriptions and permanent values outlive the process; a change that came while none
// ran is told, and what did not change is not.
func TestRestart(t *testing.T) {
	file, over := filepath.Join(t.TempDir(), "proxy.json"), &fake{}
	d := newDay(t, file, over, morning)
	d.must(t, "SUBSCRIBE", "/key/foo", one)
	d.must(t, "SUBSCRIBE", "/key/bar", one)
	d.must(t, "POST", "/key/foo", `{"data":"","id":"7","permanent":`+one+`}`)
	d.must(t, "POST", "/key/foo", `{"data":"","id":"8"}`)
	d.watched(t, 1)
	bar := overlay.Key(jami.HashKey("bar"))
	wait(t, "bar is watched", func() (bool, any) { return d.watchers(bar) == 1, nil })
	for _, key := range []overlay.Key{d.key, bar} {
		over.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: 1, Data: []byte("a")}})
	}
	d.later(coalesce)
	wait(t, "both are told", func() (bool, any) { n := len(d.push.notices(t)); return n == 2, n })
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}

	over.change(bar, overlay.Change{Value: overlay.Value{Key: bar, ID: 2, Data: []byte("b")}})
	d = newDay(t, file, over, morning.Add(time.Hour))
	d.watched(t, 1)
	wait(t, "bar is watched", func() (bool, any) { return d.watchers(bar) == 1, nil })
	if len(over.restored) != 1 || over.restored[0].ID != 7 {
		t.Errorf("restored %+v", over.restored)
	}
	n := change(d, 0)
	wait(t, "what changed is told", func() (bool, any) {
		d.later(coalesce)
		got := d.push.notices(t)
		return len(got) > 0, got
	})
	d.later(time.Minute)
	got := d.push.notices(t)
	n.Key, n.Time = hexKey(bar), got[0].Time
	d.expect(t, "what changed", n)
	d.later(keepTime - noticeTime - time.Hour)
	d.expect(t, "they end as before", d.ends(t)...)
	d.later(noticeTime)
	if c := d.Counts(); c.Subscriptions != 0 || c.Puts != 0 {
		t.Errorf("%+v", c)
	}
}

// ends are the notices of two subscriptions and a value, in the order in which they came.
func (d *day) ends(t *testing.T) []proxyjson.Notice {
	t.Helper()
	var got []proxyjson.Notice
	wait(t, "three ends", func() (bool, any) { got = d.push.notices(t); return len(got) == 3, got })
	seen := map[proxyjson.Notice]bool{}
	for _, n := range got {
		seen[n] = true
	}
	for _, want := range []proxyjson.Notice{
		{Timeout: hexKey(d.key), To: "c1", Session: "abcdefgh"}, {Timeout: hexKey(overlay.Key(jami.HashKey("bar"))), To: "c1", Session: "abcdefgh"},
		{Timeout: hexKey(d.key), To: "c1", Session: "abcdefgh", Value: 7},
	} {
		if !seen[want] {
			t.Errorf("no %+v in %+v", want, got)
		}
	}
	return got
}

// A file that does not parse is set aside, which is said, and the proxy serves.
func TestDamagedFile(t *testing.T) {
	for _, text := range []string{"", "nonsense", `{"version":2}`, `{"version":1,"subscriptions":[{"key":"xx"}]}`, `{"version":1,"values":[{"key":"0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33","id":"0"}]}`} {
		dir := t.TempDir()
		file := filepath.Join(dir, "proxy.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.ErrorLevel)
		s := serve(t, Options{Overlay: &fake{}, File: file, Log: zap.New(core)})
		s.must(t, "GET", "/", "")
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		aside, err := filepath.Glob(file + ".damaged-*")
		if err != nil || len(aside) != 1 || logs.Len() != 1 || !strings.Contains(fmt.Sprint(logs.All()[0].ContextMap()), aside[0]) {
			t.Fatalf("%q: %v, %v, %v", text, aside, err, logs.All())
		}
		if b, err := os.ReadFile(aside[0]); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// When the push service says that an endpoint is gone, its subscriptions end.
func TestGone(t *testing.T) {
	d := newDay(t, "", &fake{}, morning)
	d.must(t, "SUBSCRIBE", "/key/foo", one)
	d.must(t, "SUBSCRIBE", "/key/bar", one)
	d.must(t, "SUBSCRIBE", "/key/foo", strings.Replace(one, "/1", "/2", 1))
	d.Gone(push.Target{Platform: "unifiedpush", Token: "https://push.example.org/1"})
	if c := d.Counts(); c.Subscriptions != 1 {
		t.Errorf("%+v", c)
	}
	d.watched(t, 1)
}

// A ping is pushed at once.
func TestPing(t *testing.T) {
	d := newDay(t, "", &fake{}, morning)
	d.must(t, "POST", "/node/pingPush", one)
	if len(d.push.sent) != 1 || string(d.push.sent[0].Data) != `{"pong":true,"to":"c1"}` || !d.push.sent[0].Urgent {
		t.Errorf("%+v", d.push.sent)
	}
}

// An address, an endpoint and all have their shares; what is let go is free again.
func TestBounds(t *testing.T) {
	d := newDay(t, "", &fake{}, morning)
	ask := func(from, method, path, body string) int {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		return w.Code
	}
	sub := func(from string, key, token int) int {
		return ask(from, "SUBSCRIBE", fmt.Sprintf("/key/%d", key), fmt.Sprintf(`{"key":"https://push.example.org/%d","client_id":"c","platform":"unifiedpush"}`, token))
	}
	for i := range subsPerEndpoint {
		if got := sub("192.0.2.1:1", i, 1); got != 200 {
			t.Fatalf("subscription %d: %d", i, got)
		}
	}
	if got := sub("192.0.2.2:1", 9999, 1); got != 503 {
		t.Errorf("too many of an endpoint: %d", got)
	}
	if got := sub("192.0.2.2:1", 0, 2); got != 200 {
		t.Errorf("another address: %d", got)
	}
	put := func(from string, id int) int {
		return ask(from, "POST", "/key/foo", fmt.Sprintf(`{"data":"","id":%d,"permanent":true}`, id))
	}
	for i := range putsPerAddress {
		if got := put("192.0.2.3:1", i+1); got != 200 {
			t.Fatalf("put %d: %d", i, got)
		}
	}
	if got := put("192.0.2.3:1", 999); got != 502 {
		t.Errorf("too many of an address: %d", got)
	}
	if got := put("192.0.2.3:1", 1); got != 200 {
		t.Errorf("again: %d", got)
	}
	if got := put("192.0.2.4:1", 998); got != 200 {
		t.Errorf("another address: %d", got)
	}
	d.later(keepTime)
	if got := put("192.0.2.3:1", 999); got != 200 {
		t.Errorf("after a day: %d", got)
	}
	if c := d.Counts(); c.Subscriptions != 0 || c.Puts != 1 {
		t.Errorf("%+v", c)
	}
	for i := 0; ask("192.0.2.5:1", "GET", "/key/foo", "") != http.StatusTooManyRequests; i++ {
		if i > 10*readsBurst { // the rate gives some of them back meanwhile
			t.Fatal("an address may ask without end")
		}
	}
}

// Many listen at once, each hears of a change, and all are let go at the end.
func TestManyListeners(t *testing.T) {
	over := &fake{}
	s := serve(t, Options{Overlay: over})
	key := overlay.Key(jami.HashKey("foo"))
	const n = 200
	var rs []*reader
	for range n {
		rs = append(rs, s.listen(t, "/key/foo/listen"))
	}
	wait(t, "all listen", func() (bool, any) { w := s.watchers(key); return w == n, w })
	over.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: 1, Data: []byte("a")}})
	for _, r := range rs {
		r.next(t)
	}
	if n := over.listening(key); n != 1 {
		t.Errorf("%d listeners of the overlay", n)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	for _, r := range rs {
		if l, ok := <-r.lines; ok {
			t.Errorf("heard %s", l)
		}
	}
}

// FuzzBody gives any body to each request that has one.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"data":"aGk=","id":"77","type":3,"utype":"text/plain","prio":1,"permanent":true}`))
	f.Add([]byte(`{"data":"","permanent":` + one + `}`))
	f.Add([]byte(one))
	f.Add([]byte(`{"cypher":"AAE="}`))
	s := serve(f, Options{Overlay: &fake{}, Log: zap.NewNop()})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range []struct{ method, path string }{{"POST", "/key/foo"}, {"SUBSCRIBE", "/key/foo"}, {"UNSUBSCRIBE", "/key/foo"}, {"POST", "/node/pingPush"}} {
			r := httptest.NewRequest(x.method, x.path, strings.NewReader(string(b)))
			r.RemoteAddr = "127.0.0.1:1"
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError {
				t.Errorf("%s %s: %s", x.method, x.path, w.Body)
			}
		}
	})
}

// FuzzFile gives any file to the start.
func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"subscriptions":[{"platform":"unifiedpush","token":"https://a","client_id":"c","key":"0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33","expires":"2026-05-04T06:00:00Z","seen":"1"}],"values":[{"key":"0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33","id":"1","type":0,"data":"AA==","expires":"2026-05-04T06:00:00Z"}]}`))
	f.Add([]byte(`{"version":1,"subscriptions":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := New(Options{Overlay: &fake{}, Push: &pushes{}, Log: zap.NewNop(), File: filepath.Join(t.TempDir(), "none"), Now: (&clock{at: morning}).now})
		if err != nil {
			t.Fatal(err)
		}
		defer p.End()
		if err := p.parse(b); err == nil {
			if c := p.Counts(); c.Subscriptions > maxSubs || c.Puts > maxPuts {
				t.Errorf("%+v", c)
			}
		} else if c := p.Counts(); c != (Counts{}) {
			t.Errorf("half of it was taken: %+v", c)
		}
	})
}

// What is there and gone again before it was told is not told; after a start there is
// time to find what is there.
func TestNothingNewIsNotTold(t *testing.T) {
	file, over := filepath.Join(t.TempDir(), "proxy.json"), &fake{}
	d := newDay(t, file, over, morning)
	d.must(t, "SUBSCRIBE", "/key/foo", one)
	d.watched(t, 1)
	v := overlay.Change{Value: d.value(1, "secret")}
	over.change(d.key, v)
	over.change(d.key, overlay.Change{Value: v.Value, Expired: true})
	d.later(time.Minute)
	d.expect(t, "it came and went")
	over.change(d.key, v)
	d.later(coalesce)
	d.expect(t, "it is there", change(d, 0))
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	over.change(d.key, overlay.Change{Value: v.Value, Expired: true}) // as after a start, not found yet
	d = newDay(t, file, over, morning.Add(time.Hour))
	d.watched(t, 1)
	d.later(settle / 2)
	over.change(d.key, v)
	d.later(settle)
	d.later(time.Minute)
	d.expect(t, "all is as before")
}

// Values that are too much to remember are left out; what goes is free again.
func TestFeedBounds(t *testing.T) {
	over := &fake{}
	s := serve(t, Options{Overlay: over})
	key := overlay.Key(jami.HashKey("foo"))
	r := s.listen(t, "/key/foo/listen")
	wait(t, "it listens", func() (bool, any) { return s.watchers(key) == 1, nil })
	big := make([]byte, 30<<10)
	const n = maxFeedBytes / (41 << 10) // that many fit, in base64
	for i := range 2 * n {
		over.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: uint64(i + 1), Data: big}})
	}
	for range n {
		r.next(t)
	}
	if b := s.feeds.bytes.Load(); b > maxFeedBytes || b < maxFeedBytes/2 {
		t.Errorf("%d bytes", b)
	}
	for i := range 2 * n {
		over.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: uint64(i + 1), Data: big}, Expired: true})
	}
	if b := s.feeds.bytes.Load(); b != 0 {
		t.Errorf("%d bytes are left", b)
	}
	over.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: 1, Data: big}})
	r.close()
	wait(t, "all is forgotten", func() (bool, any) { b := s.feeds.bytes.Load(); return b == 0, b })
}
