package gitlink

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const conversation = "0123456789012345678901234567890123456789"

var peer = channel.Peer{Account: jami.ID{7}, Device: jami.ID{8}, DeviceLong: jami.LongID{9}.String()}

func TestNames(t *testing.T) {
	id := jami.LongID{1, 2}
	if d, c, err := ParseName(Name(id, conversation)); err != nil || d != id || c != conversation {
		t.Errorf("%v, %s, %v", d, c, err)
	}
	for _, s := range []string{"", "git", "git://", "git://x/" + conversation, "git://" + id.String() + "/../../x", "git://" + id.String() + "/" + conversation + "/x",
		"git://" + id.String(), "git://" + id.String() + "/" + strings.ToUpper("a"+conversation[1:]), "http://" + id.String() + "/" + conversation} {
		if _, _, err := ParseName(s); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add(Name(jami.LongID{1}, conversation))
	f.Add("git://x/y")
	f.Fuzz(func(t *testing.T, s string) {
		if d, c, err := ParseName(s); err == nil && !strings.EqualFold(Name(d, c), s) {
			t.Errorf("%q is %v, %s", s, d, c)
		}
	})
}

// other is the process with the repositories.
type other struct {
	t    *testing.T
	l    *net.UnixListener
	path string
}

func newOther(t *testing.T) *other {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &other{t, l, path}
}

func (o *other) next() (*net.UnixConn, contract.GitHello) {
	o.t.Helper()
	c, err := o.l.AcceptUnix()
	if err != nil {
		o.t.Error(err)
		return nil, contract.GitHello{}
	}
	var h contract.GitHello
	if err := json.Unmarshal([]byte(o.read(c)), &h); err != nil {
		o.t.Error(err)
	}
	return c, h
}

func (o *other) read(c *net.UnixConn) string {
	o.t.Helper()
	b := make([]byte, contract.GitMessage)
	n, err := c.Read(b)
	if err != nil {
		o.t.Error(err)
	}
	return string(b[:n])
}

func TestLinks(t *testing.T) {
	o := newOther(t)
	l := New(o.path, zap.NewNop())
	defer l.Close()
	own := jami.ID{1}
	answered := make(chan *net.UnixConn, 1)
	answer := func(word string) {
		go func() {
			c, h := o.next()
			if h.Account != own.String() || h.Peer != peer.Account.String() || h.Device != peer.DeviceLong || h.Conversation != conversation || h.Token != "" {
				t.Errorf("%+v", h)
			}
			if _, err := c.Write([]byte(word)); err != nil {
				t.Error(err)
			}
			answered <- c
		}()
	}
	name := Name(jami.LongID{5}, conversation)
	near, _ := channeltest.Pipe(name, peer)
	answer("no")
	if err := l.Accept(own, near); !errors.Is(err, ErrRefused) {
		t.Errorf("who may not have it: %v", err)
	}
	(<-answered).Close()

	near, far := channeltest.Pipe(name, peer)
	answer("ok")
	if err := l.Accept(own, near); err != nil {
		t.Fatal(err)
	}
	c := <-answered
	// Messages stay as they are, both ways.
	long := bytes.Repeat([]byte("x"), contract.GitMessage)
	for _, m := range [][]byte{[]byte("one"), long, []byte("three")} {
		if _, err := far.Write(m); err != nil {
			t.Fatal(err)
		}
		if got := o.read(c); got != string(m) {
			t.Errorf("%d bytes for %d", len(got), len(m))
		}
		if _, err := c.Write(m); err != nil {
			t.Fatal(err)
		}
		if got, err := far.ReadMessage(); err != nil || !bytes.Equal(got, m) {
			t.Errorf("%d bytes for %d, %v", len(got), len(m), err)
		}
	}
	c.Close()
	if _, err := far.ReadMessage(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}

	// One that was asked for, which the peer ends.
	near, far = channeltest.Pipe(name, peer)
	came := make(chan *net.UnixConn, 1)
	go func() {
		c, h := o.next()
		if h.Token != "t" {
			t.Errorf("%+v", h)
		}
		came <- c
	}()
	if err := l.Bring(own, near, conversation, "t"); err != nil {
		t.Fatal(err)
	}
	c = <-came
	far.Close()
	if n, err := c.Read(make([]byte, 10)); err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	c.Close()

	o.l.Close()
	near, _ = channeltest.Pipe(name, peer)
	if err := l.Accept(own, near); err == nil {
		t.Error("nobody has the repositories, and it is accepted")
	}
	near, _ = channeltest.Pipe("git://x", peer)
	if err := l.Accept(own, near); !errors.Is(err, ErrName) {
		t.Errorf("a bad name: %v", err)
	}
}
