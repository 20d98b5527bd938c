package files

import (
	"bytes"
	"context"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
	"github.com/parley-jami/parley/services/connect/device/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 8 << 20

var (
	us   = jami.ID{1}
	them = channel.Peer{Account: jami.ID{2}, Device: jami.ID{3}, DeviceLong: own.String()}
)

// side is a node's files.
type side struct {
	t      *testing.T
	folder *Folder
	offers *Offers
	giver  *Giver
	told   chan Progress
}

func newSide(t *testing.T) *side {
	t.Helper()
	folder, err := OpenFolder(filepath.Join(t.TempDir(), "files"))
	if err != nil {
		t.Fatal(err)
	}
	s := &side{t: t, folder: folder, told: make(chan Progress, 1024)}
	if s.offers, err = OpenOffers(folder, limit); err != nil {
		t.Fatal(err)
	}
	s.giver = NewGiver(s.offers, nil, func(p Progress) { s.told <- p }, zap.NewNop())
	t.Cleanup(func() {
		s.giver.Close()
		folder.Close()
	})
	return s
}

// bytesOf are n bytes that do not repeat in step with anything.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}

func sum(b []byte) string {
	h := sha3.Sum512(b)
	return hex.EncodeToString(h[:])
}

func (s *side) put(name string, b []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.folder.dir, "out", name), b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) offer(name string, b []byte) *Offer {
	s.t.Helper()
	s.put(name, b)
	x, err := s.offers.Add(s.t.Context(), Offer{Account: us, Path: name, To: []jami.ID{them.Account}})
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

func (s *side) final(out bool) Progress {
	s.t.Helper()
	for {
		select {
		case p := <-s.told:
			if p.State.Final() && p.Out == out {
				return p
			}
		case <-time.After(20 * time.Second):
			s.t.Fatal("no end of the transfer")
		}
	}
}

// What a stock daemon reads on the channel: the bytes from start, in messages of at most 65535,
// and its end (swarm §5.2).
func TestGives(t *testing.T) {
	s, data := newSide(t), bytesOf(200_000)
	x := s.offer("photo.png", data)
	if x.SHA3 != sum(data) || x.Size != int64(len(data)) || x.Name != "photo.png" || x.Check() != nil {
		t.Fatalf("%+v", x)
	}
	name := func(change func(q *Request)) string {
		q := &Request{Ref: x.Ref, Device: own, Ext: "png"}
		change(q)
		return q.Name()
	}
	for what, c := range map[string]struct {
		name string
		want []byte
	}{
		"all":         {name(func(*Request) {}), data},
		"the rest":    {name(func(q *Request) { q.Start = 65_535 }), data[65_535:]},
		"a part":      {name(func(q *Request) { q.Start, q.End = 10, 70_000 }), data[10:70_000]},
		"nothing":     {name(func(q *Request) { q.Start = 200_000 }), nil},
		"another ext": {name(func(q *Request) { q.Ext = "" }), data},
	} {
		near, far := channeltest.Pipe(c.name, them)
		if err := s.giver.Accept(us, near); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var got []byte
		for {
			b, err := far.ReadMessage()
			if err == io.EOF {
				break
			}
			if err != nil || len(b) > channel.MaxMessage || len(b) == 0 {
				t.Fatalf("%s: %d bytes, %v", what, len(b), err)
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got, c.want) {
			t.Errorf("%s: %d bytes, want %d", what, len(got), len(c.want))
		}
		if p := s.final(true); p.State != Done || p.Peer != them.Account || p.Device != them.DeviceLong || p.Ref != x.Ref {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// Who made a file shorter while it is given is told so, not that the device went.
func TestGivesAShortenedFile(t *testing.T) {
	s := newSide(t)
	s.put("a.txt", bytesOf(100))
	file, _, err := s.folder.give("a.txt", limit)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	near, _ := channeltest.Pipe(Scheme, them)
	s.giver.give(near, file, 0, 200, Progress{Out: true, Size: 200})
	if p := s.final(true); p.State != Failed || !errors.Is(p.Err, ErrChanged) || p.Bytes != 100 {
		t.Errorf("%+v", p)
	}
}

func TestRefuses(t *testing.T) {
	s := newSide(t)
	x := s.offer("a.txt", bytesOf(100))
	good := Request{Ref: x.Ref, Device: own}
	accept := func(account jami.ID, peer channel.Peer, change func(q *Request)) error {
		q := good
		if change != nil {
			change(&q)
		}
		near, _ := channeltest.Pipe(q.Name(), peer)
		return s.giver.Accept(account, near)
	}
	stranger := them
	stranger.Account = jami.ID{9}
	other := them
	other.DeviceLong = jami.LongID{9}.String()
	for name, err := range map[string]error{
		"a stranger":           accept(us, stranger, nil),
		"another account":      accept(jami.ID{8}, them, nil),
		"another's channel":    accept(us, other, nil),
		"another conversation": accept(us, them, func(q *Request) { q.Conversation = conv }),
		"another commit":       accept(us, them, func(q *Request) { q.Commit = commit }),
		"another number":       accept(us, them, func(q *Request) { q.TID = "1" }),
	} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := accept(us, them, func(q *Request) { q.Start = 101 }); !errors.Is(err, ErrName) {
		t.Errorf("behind the end: %v", err)
	}
	// The file is another one meanwhile, or gone.
	s.put("a.txt", bytesOf(101))
	if err := accept(us, them, nil); !errors.Is(err, ErrChanged) {
		t.Errorf("a changed file: %v", err)
	}
	if err := os.Remove(filepath.Join(s.folder.dir, "out", "a.txt")); err != nil {
		t.Fatal(err)
	}
	if err := accept(us, them, nil); !errors.Is(err, ErrNoFile) {
		t.Errorf("a file that is gone: %v", err)
	}
	if had, err := s.offers.Remove(us, x.Ref); !had || err != nil {
		t.Fatalf("%v, %v", had, err)
	}
	if err := accept(us, them, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("after it was taken back: %v", err)
	}
	// One device has so many at once.
	y := s.offer("big", bytesOf(limit))
	good.Ref = y.Ref
	for i := range maxGivenDevice + 1 {
		near, far := channeltest.Pipe(good.Name(), them)
		err := s.giver.Accept(us, near)
		if (err != nil) != (i == maxGivenDevice) {
			t.Errorf("channel %d: %v", i, err)
		}
		defer far.Close()
	}
}

func TestOffers(t *testing.T) {
	s := newSide(t)
	add := func(x Offer) error {
		x.Account = us
		if x.To == nil {
			x.To = []jami.ID{them.Account}
		}
		_, err := s.offers.Add(t.Context(), x)
		return err
	}
	s.put("a.txt", []byte("hi"))
	out := filepath.Join(s.folder.dir, "out")
	if err := errors.Join(os.Mkdir(filepath.Join(out, "dir"), 0o700), os.Symlink("/etc/passwd", filepath.Join(out, "passwd")), os.Symlink("../offers.json", filepath.Join(out, "offers")),
		syscall.Mkfifo(filepath.Join(out, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	big, err := os.Create(filepath.Join(out, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(big.Truncate(limit+1), big.Close()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		x    Offer
		want error
	}{
		"out of the folder": {Offer{Path: "../../x"}, ErrNoFile}, "absolute": {Offer{Path: "/etc/passwd"}, ErrNoFile}, "none": {Offer{Path: "b.txt"}, ErrNoFile},
		"NUL": {Offer{Path: "a.txt\x00", Name: "a"}, ErrNoFile}, "a link out": {Offer{Path: "passwd"}, ErrNoFile}, "a link up": {Offer{Path: "offers"}, ErrNoFile}, "a folder": {Offer{Path: "dir"}, ErrNoFile}, "a pipe": {Offer{Path: "fifo"}, ErrNoFile},
		"very long": {Offer{Path: strings.Repeat("x", 5000), Name: "a"}, ErrNoFile}, "too large": {Offer{Path: "big"}, ErrTooLarge}, "no path": {Offer{Name: "a"}, ErrNoFile},
		"a bad name": {Offer{Path: "a.txt", Name: "../x"}, ErrName}, "a bad reference": {Offer{Path: "a.txt", Ref: Ref{conv, commit, "x"}}, ErrName},
		"for nobody": {Offer{Path: "a.txt", To: []jami.ID{}}, ErrName}, "for too many": {Offer{Path: "a.txt", To: make([]jami.ID, maxMembers+1)}, ErrName},
	} {
		if err := add(c.x); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	ref := Ref{conv, commit, "7"}
	if err := add(Offer{Path: "a.txt", Ref: ref}); err != nil {
		t.Fatal(err)
	}
	if err := add(Offer{Path: "a.txt", Ref: ref}); !errors.Is(err, ErrOffered) {
		t.Errorf("twice: %v", err)
	}
	again, err := OpenOffers(s.folder, limit)
	if err != nil {
		t.Fatal(err)
	}
	if l := again.List(us); len(l) != 1 || l[0].Ref != ref || l[0].SHA3 != sum([]byte("hi")) || !l[0].Modified.Equal(s.offers.List(us)[0].Modified) {
		t.Errorf("after a restart: %+v", l)
	}
	if l := again.List(jami.ID{8}); len(l) != 0 {
		t.Errorf("another account's: %+v", l)
	}
	if err := os.WriteFile(s.offers.file, []byte(`[{"tid":"x"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenOffers(s.folder, limit); err == nil {
		t.Error("a damaged list was read")
	}
}

// opener opens channels in order, each of them played by a function.
type opener struct {
	mu    sync.Mutex
	names []string
	play  []func(far *channeltest.Channel)
	wg    sync.WaitGroup
}

var errNobody = errors.New("nobody is there")

func (o *opener) Open(_ context.Context, _, of jami.ID, name func(jami.LongID) string) (channel.Channel, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := name(own)
	o.names = append(o.names, s)
	if len(o.play) == 0 || of != them.Account {
		return nil, errNobody
	}
	near, far := channeltest.Pipe(s, them)
	play := o.play[0]
	o.play = o.play[1:]
	o.wg.Go(func() { play(far) })
	return near, nil
}

func sends(b []byte) func(*channeltest.Channel) {
	return func(far *channeltest.Channel) {
		for part := range slices.Chunk(b, channel.MaxMessage) {
			if _, err := far.Write(part); err != nil {
				return
			}
		}
		far.Close()
	}
}

func (s *side) fetcher(o Opener) *Fetcher {
	f := NewFetcher(s.folder, o, limit, func(p Progress) { s.told <- p }, zap.NewNop())
	f.again = time.Millisecond
	s.t.Cleanup(f.Close)
	return f
}

func wish(data []byte) Wish {
	return Wish{Ref: Ref{conv, commit, "7"}, Account: us, From: them.Account, Name: "photo.PNG", Size: int64(len(data)), SHA3: sum(data)}
}

func TestFetches(t *testing.T) {
	data := bytesOf(300_000)
	wrong := bytes.Clone(data)
	wrong[5]++
	hold := func(b []byte) func(*channeltest.Channel) {
		return func(far *channeltest.Channel) {
			far.Write(b) //nolint:errcheck // what follows is the point
			far.ReadMessage()
		}
	}
	for name, c := range map[string]struct {
		play   []func(*channeltest.Channel)
		wish   func(w *Wish)
		full   bool     // the disk
		want   error    // nil: it comes
		starts []string // of the names that were opened
		there  []byte   // partial file before
		rest   int64    // partial file after; -1: none
	}{
		"all":                  {play: []func(*channeltest.Channel){sends(data)}, starts: []string{""}, rest: -1},
		"an empty one":         {wish: func(w *Wish) { w.Size, w.SHA3 = 0, sum(nil) }, rest: -1},
		"in pieces":            {play: []func(*channeltest.Channel){sends(data[:100_000]), sends(data[100_000:100_001]), sends(data[100_001:])}, starts: []string{"", "?start=100000&end=0", "?start=100001&end=0"}, rest: -1},
		"where it was left":    {there: data[:250_000], play: []func(*channeltest.Channel){sends(data[250_000:])}, starts: []string{"?start=250000&end=0"}, rest: -1},
		"all there but a name": {there: data, rest: -1},
		"another's rest":       {there: wrong[:10], play: []func(*channeltest.Channel){sends(data[10:]), sends(data)}, starts: []string{"?start=10&end=0", ""}, rest: -1},
		"too much there":       {there: append(bytes.Clone(data), 1), play: []func(*channeltest.Channel){sends(data)}, starts: []string{""}, rest: -1},
		"other bytes":          {play: []func(*channeltest.Channel){sends(wrong)}, want: ErrHash, rest: -1},
		"fewer bytes":          {play: []func(*channeltest.Channel){sends(data[:9]), sends(nil), sends(nil), sends(nil), sends(nil)}, want: ErrShort, rest: 9},
		"more bytes":           {play: []func(*channeltest.Channel){sends(append(bytes.Clone(data), 1, 2, 3))}, want: ErrLong, rest: -1},
		"nobody":               {want: errNobody, rest: 0},
		"silence":              {play: []func(*channeltest.Channel){hold(data[:7]), hold(nil), hold(nil), hold(nil), hold(nil)}, want: ErrStalled, rest: 7},
		"a full disk":          {play: []func(*channeltest.Channel){sends(data)}, full: true, want: ErrDisk, rest: -1},
	} {
		t.Run(name, func(t *testing.T) {
			s, o, w := newSide(t), &opener{play: c.play}, wish(data)
			if c.wish != nil {
				c.wish(&w)
			}
			f := s.fetcher(o)
			if errors.Is(c.want, ErrStalled) {
				f.stall = 50 * time.Millisecond
			}
			if c.full {
				s.folder.write = func(*os.File, []byte) (int, error) { return 0, syscall.ENOSPC }
			}
			path := filepath.Join(s.folder.dir, "in", us.String(), conv+"_"+commit+"_7.png")
			if c.there != nil {
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path+part, c.there, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			id, err := f.Start(w)
			if err != nil {
				t.Fatal(err)
			}
			p := s.final(false)
			if p.ID != id || !errors.Is(p.Err, c.want) || (p.Err == nil) != (c.want == nil) || (p.State == Done) != (c.want == nil) {
				t.Fatalf("%s, %v, %d bytes, want %v", p.State, p.Err, p.Bytes, c.want)
			}
			var starts []string
			for _, n := range o.names {
				base := (&Request{Ref: w.Ref, Device: own, Ext: "PNG"}).Name()
				start, ok := strings.CutPrefix(n, base)
				if !ok {
					t.Errorf("opened %s", n)
				}
				starts = append(starts, start)
			}
			if c.want == nil && !slices.Equal(starts, c.starts) {
				t.Errorf("opened with %q, want %q", starts, c.starts)
			}
			if info, err := os.Stat(path + part); (c.rest < 0) != os.IsNotExist(err) || err == nil && info.Size() != c.rest {
				t.Errorf("left: %v, %v, want %d bytes", info, err, c.rest)
			}
			if c.want == nil {
				if b, err := os.ReadFile(p.Path); p.Path != path || err != nil || sum(b) != w.SHA3 {
					t.Errorf("%s: %d bytes, %v", p.Path, len(b), err)
				}
				// It is there: nobody is asked again.
				if _, err := f.Start(w); err != nil {
					t.Fatal(err)
				}
				if p := s.final(false); p.State != Done || len(o.names) != len(c.starts) {
					t.Errorf("again: %+v, %q", p, o.names)
				}
			}
			f.Close()
			o.wg.Wait()
		})
	}
}

func TestWishes(t *testing.T) {
	s, data := newSide(t), bytesOf(10)
	f := s.fetcher(&opener{play: []func(*channeltest.Channel){func(far *channeltest.Channel) { far.ReadMessage() }}})
	for name, change := range map[string]func(w *Wish){
		"a path": func(w *Wish) { w.Name = "../../x" }, "no commit": func(w *Wish) { w.Commit = "../x" }, "capitals": func(w *Wish) { w.Conversation = strings.ToUpper(conv) },
		"a number like a path": func(w *Wish) { w.TID = "1/../2" }, "no hash": func(w *Wish) { w.SHA3 = "" }, "a hash that is none": func(w *Wish) { w.SHA3 = strings.Repeat("x", 128) },
		"a negative size": func(w *Wish) { w.Size = -1 }, "no name": func(w *Wish) { w.Name = "" },
	} {
		w := wish(data)
		if change(&w); w.check(limit) == nil {
			t.Errorf("%s is taken", name)
		}
		if _, err := f.Start(w); !errors.Is(err, ErrName) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := wish(data)
	w.Size = limit + 1
	if _, err := f.Start(w); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	// A link where the bytes would go is none of ours.
	victim := filepath.Join(t.TempDir(), "victim")
	path := filepath.Join(s.folder.dir, "in", localName(us, w.Ref, w.Name)+part)
	if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(victim, path)); err != nil {
		t.Fatal(err)
	}
	id, err := f.Start(wish(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Start(wish(data)); !errors.Is(err, ErrRunning) {
		t.Errorf("the same again: %v", err)
	}
	for p := range s.told {
		if p.State == Running {
			break
		}
	}
	if f.Cancel(jami.ID{8}, id) || !f.Cancel(us, id) {
		t.Error("who may cancel")
	}
	if p := s.final(false); p.State != Cancelled || p.Err != nil {
		t.Errorf("%+v", p)
	}
	if f.Cancel(us, id) {
		t.Error("cancelled twice")
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the link's file: %q, %v", b, err)
	}
	if l := f.List(us); len(l) != 1 || l[0].State != Cancelled || len(f.List(jami.ID{8})) != 0 {
		t.Errorf("%+v", l)
	}
	f.Close()
	if _, err := f.Start(wish(data)); !errors.Is(err, errEnded) {
		t.Errorf("after the end: %v", err)
	}
}

// muxOpener opens channels on a connection.
type muxOpener struct{ sock *mux.Socket }

func (o muxOpener) Open(ctx context.Context, _, _ jami.ID, name func(jami.LongID) string) (channel.Channel, error) {
	c, err := o.sock.Open(ctx, name(own))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// TestBothEnds: files of one node reach another on a connection that is cut in the middle.
func TestBothEnds(t *testing.T) {
	from, to := newSide(t), newSide(t)
	data := bytesOf(limit)
	x := from.offer("film.mkv", data)
	connect := func() (give, get *mux.Socket, wait func()) {
		a, b := net.Pipe()
		give = mux.New(a, mux.Config{Peer: them, Accept: func(c *mux.Channel) error { return from.giver.Accept(us, c) }})
		get = mux.New(b, mux.Config{Peer: channel.Peer{Account: us}})
		var wg sync.WaitGroup
		wg.Go(func() { give.Run() }) //nolint:errcheck // it ends
		wg.Go(func() { get.Run() })  //nolint:errcheck // it ends
		return give, get, func() {
			give.Close()
			get.Close()
			wg.Wait()
		}
	}
	give, get, wait := connect()
	w := Wish{Ref: x.Ref, Account: them.Account, From: us, Name: x.Name, Size: x.Size, SHA3: x.SHA3}
	var once sync.Once
	to.folder.write = func(file *os.File, b []byte) (int, error) {
		if at, err := file.Seek(0, io.SeekCurrent); err == nil && at > limit/2 {
			once.Do(func() { give.Close() })
		}
		return file.Write(b)
	}
	f := to.fetcher(muxOpener{get})
	if _, err := f.Start(w); err != nil {
		t.Fatal(err)
	}
	if p := to.final(false); p.State != Failed {
		t.Fatalf("%+v", p)
	}
	wait()
	_, get, wait = connect()
	defer wait()
	again := to.fetcher(muxOpener{get})
	began := time.Now()
	if _, err := again.Start(w); err != nil {
		t.Fatal(err)
	}
	resumed := false
	for p := range to.told {
		if resumed = resumed || p.State == Running && p.Bytes > limit/2; !p.State.Final() {
			continue
		}
		if b, err := os.ReadFile(p.Path); p.State != Done || err != nil || !bytes.Equal(b, data) || !resumed {
			t.Errorf("%+v, %d bytes, %v, resumed %v", p, len(b), err, resumed)
		}
		break
	}
	t.Logf("the second half of %d MiB after %v", limit>>20, time.Since(began))
	again.Close()
}
