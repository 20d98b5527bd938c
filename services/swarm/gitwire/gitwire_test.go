package gitwire

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

var some = Limits{Pack: 1 << 20, Objects: 100, Object: 1 << 16, All: 1 << 20}

const conversation = "0123456789012345678901234567890123456789"

// store is a source in memory: each commit is a blob that stands on the one before.
type store struct {
	ids  []plumbing.Hash
	objs Objects
}

func newStore(bodies ...string) *store {
	s := &store{objs: Objects{}}
	for _, b := range bodies {
		h := plumbing.ComputeHash(plumbing.CommitObject, []byte(b))
		s.ids, s.objs[h] = append(s.ids, h), Object{plumbing.CommitObject, []byte(b)}
	}
	return s
}

func (s *store) Head() plumbing.Hash                    { return s.ids[len(s.ids)-1] }
func (s *store) Has(h plumbing.Hash) bool               { _, ok := s.objs[h]; return ok }
func (s *store) Object(h plumbing.Hash) (Object, error) { return s.objs[h], nil }
func (s *store) Missing(want plumbing.Hash, haves []plumbing.Hash) (out []plumbing.Hash, err error) {
	for _, id := range s.ids {
		out = append(out, id)
		for _, h := range haves {
			if h == id {
				out = nil
			}
		}
		if id == want {
			break
		}
	}
	return out, nil
}

// script is the other end of a channel that says what it will say.
type script struct {
	io.Reader
	wrote bytes.Buffer
	sizes []int
}

func (s *script) Write(p []byte) (int, error) {
	s.sizes = append(s.sizes, len(p))
	return s.wrote.Write(p)
}

func says(lines ...string) *script {
	return &script{Reader: strings.NewReader(strings.Join(lines, ""))}
}

func line(s string) string {
	var b bytes.Buffer
	o := &out{w: &b}
	if err := errors.Join(o.line([]byte(s)), o.send()); err != nil {
		panic(err)
	}
	return b.String()
}

func packOf(objs ...Object) []byte {
	s := &store{objs: Objects{}}
	var ids []plumbing.Hash
	for _, o := range objs {
		h := plumbing.ComputeHash(o.Type, o.Data)
		s.objs[h] = o
		ids = append(ids, h)
	}
	var b bytes.Buffer
	if err := writePack(&b, ids, s.Object); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestFetch(t *testing.T) {
	src := newStore("one", "two", strings.Repeat("three", 30_000))
	var sent []plumbing.Hash
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- Serve(far, conversation, src, func(h plumbing.Hash) { sent = append(sent, h) })
	}()
	lim := some
	lim.Object = 1 << 20
	never := func(plumbing.Hash) bool { return false }
	// One channel serves one request after the other.
	for _, x := range []struct {
		haves []plumbing.Hash
		want  int
	}{{nil, 3}, {src.ids[:1], 2}, {append(make([]plumbing.Hash, 300), src.ids[0]), 3}, {append(make([]plumbing.Hash, 30), src.ids[1]), 1}} {
		head, objs, err := Fetch(near, conversation, "d", never, x.haves, lim)
		if err != nil || head != src.Head() || len(objs) != x.want {
			t.Errorf("%d haves: %v, %d objects, %v", len(x.haves), head, len(objs), err)
		}
		for h, o := range objs {
			if !bytes.Equal(o.Data, src.objs[h].Data) || o.Type != plumbing.CommitObject {
				t.Errorf("%v came otherwise", h)
			}
		}
	}
	if head, objs, err := Fetch(near, conversation, "d", src.Has, nil, lim); head != src.Head() || objs != nil || err != nil {
		t.Errorf("nothing new: %v, %v, %v", head, objs, err)
	}
	near.Close()
	if err := <-served; err != nil || len(sent) != 5 {
		t.Errorf("%v, told of %d", err, len(sent))
	}
}

// As a stock daemon says it (swarm §3.2): all references, an ACK with a word, stray NAKs.
func TestStockServer(t *testing.T) {
	body := Object{plumbing.CommitObject, []byte("c")}
	h := plumbing.ComputeHash(body.Type, body.Data).String()
	p := packOf(body)
	refs := line(h+" HEAD\x00side-band side-band-64k shallow no-progress include-tag\n") + line(h+" refs/heads/main\n") + line(strings.Repeat("1", 40)+" refs/remotes/x/main\n") + "0000"
	ch := says(refs, line("ACK "+h+" continue\n"), line("NAK\n"), line("ACK "+h+"\n"), line("\x01"+string(p[:10])), line("\x02counting"), line("\x01"+string(p[10:])), "0000")
	head, objs, err := Fetch(ch, conversation, strings.Repeat("d", 64), func(plumbing.Hash) bool { return false }, []plumbing.Hash{{1}}, some)
	if err != nil || head.String() != h || len(objs) != 1 {
		t.Fatalf("%v, %v, %v", head, objs, err)
	}
	if want := "0084git-upload-pack /" + conversation + "\x00host=" + strings.Repeat("d", 64) + "\x00"; !strings.HasPrefix(ch.wrote.String(), want) {
		t.Errorf("we ask %q", ch.wrote.String())
	}
}

func TestHostileServer(t *testing.T) {
	good := Object{plumbing.BlobObject, []byte("x")}
	h := plumbing.ComputeHash(good.Type, good.Data).String()
	refs := line(h+" HEAD\x00\n") + line(h+" refs/heads/main\n") + "0000"
	band := func(p []byte) string { return line("NAK\n") + line("\x01"+string(p)) + "0000" }
	broken := packOf(good)
	broken[len(broken)-1]++
	many := make([]Object, 101)
	for i := range many {
		many[i] = Object{plumbing.BlobObject, []byte{byte(i)}}
	}
	for name, x := range map[string]struct {
		said string
		is   error
	}{
		"nothing":             {"", ErrWire},
		"no pkt-line":         {"hello there", ErrWire},
		"a line that is cut":  {"00ff12", ErrWire},
		"no branch":           {line(h+" HEAD\n") + "0000", ErrWire},
		"a branch of nothing": {line("x refs/heads/main\n") + "0000", ErrWire},
		"too many references": {strings.Repeat(line(h+" refs/x\n"), maxRefs+1), ErrLarge},
		"an error":            {line("ERR no"), ErrWire},
		"no pack":             {refs + "0000", ErrWire},
		"it ends":             {refs, ErrWire},
		"it ends in the pack": {refs + line("\x01PACK"), ErrWire},
		"words for a pack":    {refs + line("hello"), ErrWire},
		"an error for a pack": {refs + line("\x03no"), ErrWire},
		"no pack in the band": {refs + band([]byte("hello, this is not what it should be")), ErrPack},
		"another checksum":    {refs + band(broken), ErrPack},
		"too many objects":    {refs + band(packOf(many...)), ErrLarge},
		"an object too large": {refs + band(packOf(Object{plumbing.BlobObject, make([]byte, 1<<16+1)})), ErrLarge},
		"a pack too large":    {refs + line("NAK\n") + strings.Repeat(line("\x01"+strings.Repeat("x", maxBand)), 17), ErrLarge},
		"an empty pack":       {refs + band(nil), ErrWire},
	} {
		_, objs, err := Fetch(says(x.said), conversation, "d", func(plumbing.Hash) bool { return false }, nil, some)
		if !errors.Is(err, x.is) || objs != nil {
			t.Errorf("%s: %v, %v", name, objs, err)
		}
	}
}

// entry is an object of a pack as it is on the wire; claim is the size that it says.
func entry(typ byte, claim int, extra, data []byte) []byte {
	var b bytes.Buffer
	b.Write(entryHead(typ, claim))
	b.Write(extra)
	zw := zlib.NewWriter(&b)
	zw.Write(data) //nolint:errcheck // into memory
	zw.Close()     //nolint:errcheck // into memory
	return b.Bytes()
}

func pack(entries ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(entries)))
	for _, e := range entries {
		b = append(b, e...)
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func TestDeltas(t *testing.T) {
	base := []byte("hello world")
	id := plumbing.ComputeHash(plumbing.BlobObject, base)
	// 11 bytes become 5 and "!": copy 5 from 0, insert 1.
	change := []byte{11, 6, 0x90, 5, 1, '!'}
	ref := entry(7, len(change), id[:], change)
	whole := entry(3, len(base), nil, base)
	for name, p := range map[string][]byte{"its base before it": pack(whole, ref), "its base behind it": pack(ref, whole),
		"by offset": pack(whole, entry(6, len(change), []byte{byte(len(whole))}, change))} {
		objs, err := Unpack(p, some)
		if want := plumbing.ComputeHash(plumbing.BlobObject, []byte("hello!")); err != nil || string(objs[want].Data) != "hello!" {
			t.Errorf("%s: %v, %v", name, objs, err)
		}
	}
	long := append([]byte{11}, binary.AppendUvarint(nil, 1<<40)...)
	for name, x := range map[string]struct {
		p  []byte
		is error
	}{
		"no base":              {pack(ref), ErrPack},
		"a base to nowhere":    {pack(whole, entry(6, len(change), []byte{1}, change)), ErrPack},
		"it says 1 TiB":        {pack(whole, entry(7, len(long), id[:], long)), ErrLarge},
		"it copies too much":   {pack(whole, entry(7, 5, id[:], []byte{11, 60, 0x90, 60, 0})), ErrPack},
		"a delta of nothing":   {pack(whole, entry(7, 0, id[:], nil)), ErrPack},
		"shorter than it says": {pack(entry(3, 100, nil, base)), ErrPack},
		"longer than it says":  {pack(entry(3, 3, nil, base)), ErrPack},
		"a tag":                {pack(entry(4, len(base), nil, base)), ErrPack},
		"a bomb":               {pack(entry(3, 1<<30, nil, make([]byte, 1<<20))), ErrLarge},
		"many in all":          {pack(whole, entry(3, 1<<16, nil, make([]byte, 1<<16)), entry(3, 1<<16, nil, bytes.Repeat([]byte{1}, 1<<16))), ErrLarge},
		"more than it has": {func() []byte {
			p := pack(whole)
			p[11] = 9
			s := sha1.Sum(p[:len(p)-20])
			return append(p[:len(p)-20], s[:]...)
		}(), ErrPack},
	} {
		lim := some
		lim.All = 100_000
		if objs, err := Unpack(x.p, lim); !errors.Is(err, x.is) {
			t.Errorf("%s: %v, %v", name, objs, err)
		}
	}
}

func TestHostileClient(t *testing.T) {
	src := newStore("one")
	ask, h := line("git-upload-pack /"+conversation+"\x00host=x\x00"), src.Head().String()
	for name, said := range map[string]string{
		"another conversation": line("git-upload-pack /../../etc\x00host=x\x00"),
		"it pushes":            line("git-receive-pack /" + conversation + "\x00host=x\x00"),
		"version 1":            line("git-upload-pack /" + conversation + "\x00host=x\x00\x00version=1\x00"),
		"words":                ask + line("hello\n"),
		"a want of nothing":    ask + line("want x\n"),
		"a want of another's":  ask + line("want "+strings.Repeat("1", 40)+"\n") + "0000" + line("done\n"),
		"done without a want":  ask + line("done\n"),
		"it never ends":        ask + line("want "+h+"\n") + "0000" + strings.Repeat(line("have "+h+"\n"), 2000),
		"it ends in the midst": ask + line("want "+h+"\n"),
		"no pkt-line":          "hello",
	} {
		ch := says(said)
		if err := Serve(ch, conversation, src, func(plumbing.Hash) { t.Errorf("%s: it has it", name) }); err == nil {
			t.Errorf("%s: no error", name)
		}
		if strings.Contains(ch.wrote.String(), "PACK") {
			t.Errorf("%s: it gets a pack", name)
		}
	}
}

// What goes out is whole pkt-lines in each write, as stock's server needs them.
func TestWritesAreWhole(t *testing.T) {
	src := newStore(string(bytes.Repeat([]byte("0123456789abcdef"), 1<<14)))
	ch := says(line("git-upload-pack /"+conversation+"\x00host=x\x00"), line("want "+src.Head().String()+" side-band-64k include-tag \n"), "0000", line("done\n"), "0000")
	if err := Serve(ch, conversation, src, func(plumbing.Hash) {}); err != nil {
		t.Fatal(err)
	}
	all := ch.wrote.Bytes()
	for _, n := range ch.sizes {
		if n > maxWrite {
			t.Errorf("a write of %d bytes", n)
		}
		r := newIn(bytes.NewReader(all[:n]))
		for {
			if _, err := r.next(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("a write of %d bytes: %v", n, err)
			}
		}
		all = all[n:]
	}
}

func FuzzServer(f *testing.F) {
	src := newStore("one", "two")
	f.Add([]byte(line("git-upload-pack /"+conversation+"\x00host=x\x00") + line("want "+src.Head().String()+"\n") + "0000" + line("have "+src.ids[0].String()+"\n") + "0000" + line("done\n") + "0000"))
	f.Add([]byte("0000"))
	f.Add([]byte("fff0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ch := &script{Reader: bytes.NewReader(b)}
		Serve(ch, conversation, src, func(h plumbing.Hash) { //nolint:errcheck // any is right
			if !src.Has(h) {
				t.Errorf("it has %v", h)
			}
		})
	})
}

func FuzzFetch(f *testing.F) {
	o := Object{plumbing.CommitObject, []byte("c")}
	h := plumbing.ComputeHash(o.Type, o.Data).String()
	f.Add([]byte(line(h+" HEAD\x00caps\n") + line(h+" refs/heads/main\n") + "0000" + line("NAK\n") + line("\x01"+string(packOf(o))) + "0000"))
	f.Add([]byte("0000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, objs, err := Fetch(&script{Reader: bytes.NewReader(b)}, conversation, "d", func(plumbing.Hash) bool { return false }, nil, some)
		if err != nil && objs != nil {
			t.Error("both objects and an error")
		}
	})
}

func FuzzUnpack(f *testing.F) {
	base := []byte("hello world")
	id := plumbing.ComputeHash(plumbing.BlobObject, base)
	f.Add(pack(entry(3, len(base), nil, base), entry(7, 6, id[:], []byte{11, 6, 0x90, 5, 1, '!'}))[12:])
	f.Add(pack(entry(1, 3, nil, []byte("abc")))[12:])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x02"), body...)
		sum := sha1.Sum(b)
		objs, err := Unpack(append(b, sum[:]...), Limits{Objects: 100, Object: 1 << 16, All: 1 << 18})
		if err != nil {
			return
		}
		for h, o := range objs {
			if plumbing.ComputeHash(o.Type, o.Data) != h || len(o.Data) > 1<<16 {
				t.Errorf("%v: %d bytes", h, len(o.Data))
			}
		}
	})
}
