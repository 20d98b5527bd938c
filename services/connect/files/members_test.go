package files

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
)

// taken reads all that comes on a channel which is asked for.
func (s *side) taken(g *Giver, by channel.Peer, r Ref, ext string) ([]byte, error) {
	s.t.Helper()
	device, err := jami.ParseLongID(by.DeviceLong)
	if err != nil {
		s.t.Fatal(err)
	}
	near, far := channeltest.Pipe((&Request{Ref: r, Device: device, Ext: ext}).Name(), by)
	if err := g.Accept(us, near); err != nil {
		return nil, err
	}
	var got []byte
	for {
		b, err := far.ReadMessage()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			s.t.Fatal(err)
		}
		got = append(got, b...)
	}
}

// A file of a conversation goes to who is a member when it asks, and is what the conversation says.
func TestGivesToMembers(t *testing.T) {
	s, data := newSide(t), bytesOf(100_000)
	s.put("film.mkv", data)
	said := Offer{Name: "film.mkv", Size: int64(len(data)), SHA3: sum(data)}
	var announced Ref
	g := NewGiver(s.offers, func(account jami.ID, peer channel.Peer, r Ref) (string, string, int64, error) {
		if account != us || peer.Account != them.Account || r != announced {
			return "", "", 0, errors.New("no member, or no such file")
		}
		return said.Name, said.SHA3, said.Size, nil
	}, func(p Progress) { s.told <- p }, zap.NewNop())
	defer g.Close()
	x, err := s.offers.Add(t.Context(), Offer{Account: us, Path: "film.mkv", Members: true})
	if err != nil || x.Conversation != "" || x.Commit != "" || x.TID == "" || x.SHA3 != said.SHA3 {
		t.Fatalf("%+v, %v", x, err)
	}
	announced = Ref{conv, commit, x.TID}
	stranger := channel.Peer{Account: jami.ID{9}, DeviceLong: own.String()}
	other := announced
	other.Commit = strings.Repeat("9", 40)
	check := func(when string) {
		t.Helper()
		if got, err := s.taken(g, them, announced, "mkv"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: a member gets %d bytes, %v", when, len(got), err)
		}
		if _, err := s.taken(g, stranger, announced, "mkv"); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: a stranger: %v", when, err)
		}
		if _, err := s.taken(g, them, other, "mkv"); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: another commit: %v", when, err)
		}
	}
	check("before we know the commit")
	// So it is after a start.
	if s.offers, err = OpenOffers(s.folder, limit); err != nil {
		t.Fatal(err)
	}
	if x, err = s.offers.Settle(x, &announced); err != nil || x.Ref != announced {
		t.Fatalf("%+v, %v", x, err)
	}
	g.offers = s.offers
	check("after it")
	if l := s.offers.List(us); len(l) != 1 || l[0].Ref != announced {
		t.Errorf("listed is %+v", l)
	}
	said.SHA3 = sum([]byte("x"))
	if _, err := s.taken(g, them, announced, "mkv"); !errors.Is(err, ErrChanged) {
		t.Errorf("the conversation says that it is another file: %v", err)
	}
	// Without a conversation it is offered to an account alone.
	s.put("b.txt", data)
	y, err := s.offers.Add(t.Context(), Offer{Account: us, Path: "b.txt", Members: true, To: []jami.ID{them.Account}})
	if err == nil {
		y, err = s.offers.Settle(y, nil)
	}
	if err != nil || y.Members || y.Check() != nil {
		t.Fatalf("%+v, %v", y, err)
	}
	if got, err := s.taken(g, them, y.Ref, "txt"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What the account got of a conversation it gives to other members, and what is not whole to nobody.
func TestGivesWhatItGot(t *testing.T) {
	s, data := newSide(t), bytesOf(5000)
	ref := Ref{conv, commit, "7"}
	g := NewGiver(s.offers, func(jami.ID, channel.Peer, Ref) (string, string, int64, error) {
		return "../../photo.png", sum(data), int64(len(data)), nil
	}, func(p Progress) { s.told <- p }, zap.NewNop())
	defer g.Close()
	if _, err := s.taken(g, them, ref, "png"); !errors.Is(err, ErrNoFile) {
		t.Errorf("nothing is there: %v", err)
	}
	path := filepath.Join(s.folder.dir, "in", us.String(), conv+"_"+commit+"_7.png")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data[:10], 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.taken(g, them, ref, "png"); !errors.Is(err, ErrNoFile) {
		t.Errorf("a part of it is there: %v", err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.taken(g, them, ref, "png"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A process that ends, or is killed, leaves what is fetched to the next one, under the same id.
func TestFetchGoesOn(t *testing.T) {
	s, data := newSide(t), bytesOf(100_000)
	block := make(chan struct{})
	o := &opener{play: []func(*channeltest.Channel){func(far *channeltest.Channel) {
		far.Write(data[:40_000]) //nolint:errcheck // what follows is the point
		close(block)
		far.ReadMessage()
	}}}
	f := NewFetcher(s.folder, o, limit, func(p Progress) { s.told <- p }, zap.NewNop())
	id, err := f.Start(wish(data))
	if err != nil {
		t.Fatal(err)
	}
	<-block
	path := filepath.Join(s.folder.dir, "in", us.String(), conv+"_"+commit+"_7.png.part")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Size() == 40_000 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing came")
		}
	}
	f.Close()
	for len(s.told) > 0 {
		if p := <-s.told; p.State.Final() {
			t.Errorf("told is %+v", p)
		}
	}
	o = &opener{play: []func(*channeltest.Channel){sends(data[40_000:])}}
	next := s.fetcher(o)
	if err := next.Resume(); err != nil {
		t.Fatal(err)
	}
	if p := s.final(false); p.State != Done || p.ID != id || len(o.names) != 1 || !strings.HasSuffix(o.names[0], "?start=40000&end=0") {
		t.Errorf("%+v, opened %q", p, o.names)
	}
	next.Close()
	// It is done with.
	last := s.fetcher(&opener{})
	if err := last.Resume(); err != nil || len(last.List(us)) != 0 {
		t.Errorf("%v, %+v", err, last.List(us))
	}
	if err := os.WriteFile(filepath.Join(s.folder.dir, "wishes.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := last.Resume(); err == nil {
		t.Error("a damaged list")
	}
}
