//go:build interop

package opendht

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// member is a node of either kind, as the matrix sees it.
type member interface {
	// put stores a value that is already so old, in seconds.
	put(t *testing.T, key jami.ID, id uint64, age int64, form, data string, to *rsa.PublicKey) bool
	// update replaces a signed value of this node by one of a later sequence.
	update(t *testing.T, key jami.ID, id uint64, data string) bool
	get(t *testing.T, key jami.ID) []string
	listen(t *testing.T, key jami.ID) (told func() []string)
	public() *rsa.PublicKey
}

const typeIce = 5 // lives for a minute

// own is one of ours.
type own struct {
	*Node
	seq map[uint64]uint16
}

func (o own) public() *rsa.PublicKey { return &o.o.Key.PublicKey }

func (o own) put(t *testing.T, key jami.ID, id uint64, age int64, form, data string, to *rsa.PublicKey) bool {
	t.Helper()
	v := &jami.Value{ID: id, Type: typeIce, Data: []byte(data), Seq: o.seq[id]}
	switch form {
	case "signed":
		if err := v.Sign(o.o.Key); err != nil {
			t.Fatal(err)
		}
	case "encrypted":
		e, err := v.EncryptTo(to, o.o.Key)
		if err != nil {
			t.Fatal(err)
		}
		v = e
	}
	x, err := core.NewValue(v)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan int, 1)
	o.do(func() {
		_, err = o.core.Put(key, x, core.PutOptions{Created: time.Now().Add(-time.Duration(age) * time.Second), Done: func(n int) { done <- n }})
	})
	return err == nil && <-done > 0
}

func (o own) update(t *testing.T, key jami.ID, id uint64, data string) bool {
	t.Helper()
	o.seq[id]++
	return o.put(t, key, id, 0, "signed", data, nil)
}

// open is what a value says to this node: its form and its data.
func (o own) open(v *core.Value) string {
	switch {
	case v.Encrypted():
		c, err := v.Decrypt(o.o.Key)
		if err != nil {
			return "closed -"
		}
		return "encrypted " + string(c.Data)
	case v.Signed():
		return "signed " + string(v.Data)
	}
	return "plain " + string(v.Data)
}

func (o own) get(t *testing.T, key jami.ID) []string {
	t.Helper()
	var mu sync.Mutex
	var got []string
	done := make(chan struct{})
	o.do(func() {
		o.core.Get(key, wire.Query{}, func(v *core.Value) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, "+ "+o.open(v))
		}, func(core.Trace) { close(done) })
	})
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("a get does not end")
	}
	mu.Lock()
	defer mu.Unlock()
	return got
}

func (o own) listen(t *testing.T, key jami.ID) func() []string {
	t.Helper()
	var mu sync.Mutex
	var got []string
	o.do(func() {
		o.core.Listen(key, wire.Query{}, func(v *core.Value, expired bool) {
			mu.Lock()
			defer mu.Unlock()
			sign := "+ "
			if expired {
				sign = "- "
			}
			got = append(got, sign+o.open(v))
		})
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), got...)
	}
}

// peer is one of libopendht, driven by testdata/peer.cpp.
type peer struct {
	in  io.Writer
	key *rsa.PublicKey

	mu    sync.Mutex
	lines []string
}

// buildPeer compiles testdata/peer.cpp; it fails where libopendht-dev is not installed.
func buildPeer(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "peer")
	b, err := exec.Command("g++", "-std=c++17", "-O1", "testdata/peer.cpp", "-o", out, "-lopendht", "-lgnutls").CombinedOutput()
	if err != nil {
		t.Fatalf("testdata/peer.cpp does not compile; install g++ and libopendht-dev: %v\n%.500s", err, b)
	}
	return out
}

func startPeer(t *testing.T, program string, bootstrap int) *peer {
	t.Helper()
	in, o := run(t, program, strconv.Itoa(freePort(t)), strconv.Itoa(bootstrap))
	up := o.find(t, 30*time.Second, `up [0-9a-f]{40} [0-9a-f]{40} ([0-9a-f]+)`)
	der, err := hex.DecodeString(up[1])
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{in: in, key: k.(*rsa.PublicKey)}
	return p.watch(t, o)
}

// watch collects lines until the test ends.
func (p *peer) watch(t *testing.T, o *output) *peer {
	end := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
			}
			if m := o.look(200*time.Millisecond, `(?m)^(.+?) *\n`); m != nil {
				p.mu.Lock()
				p.lines = append(p.lines, m[1])
				p.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { close(end); <-done })
	return p
}

func (p *peer) public() *rsa.PublicKey { return p.key }

func (p *peer) do(t *testing.T, format string, args ...any) (from int) {
	t.Helper()
	p.mu.Lock()
	from = len(p.lines)
	p.mu.Unlock()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
	return from
}

// await waits for a line that begins so, and returns it.
func (p *peer) await(t *testing.T, from int, prefix string) string {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		for _, l := range p.lines[from:] {
			if strings.HasPrefix(l, prefix) {
				p.mu.Unlock()
				return l
			}
		}
		p.mu.Unlock()
	}
	t.Errorf("%s does not come", prefix)
	return ""
}

func (p *peer) put(t *testing.T, key jami.ID, id uint64, age int64, form, data string, to *rsa.PublicKey) bool {
	t.Helper()
	der := "-"
	if to != nil {
		b, err := x509.MarshalPKIXPublicKey(to)
		if err != nil {
			t.Fatal(err)
		}
		der = hex.EncodeToString(b)
	}
	from := p.do(t, "put %s %d %d %d %s %x %s", key, id, typeIce, age, form, data, der)
	return strings.HasSuffix(p.await(t, from, fmt.Sprint("stored ", key)), "ok")
}

func (p *peer) update(t *testing.T, key jami.ID, id uint64, data string) bool {
	t.Helper()
	from := p.do(t, "update %s %d %d %x", key, id, typeIce, data)
	return strings.HasSuffix(p.await(t, from, fmt.Sprint("stored ", key)), "ok")
}

// shown reads lines of an event of a key.
func (p *peer) shown(from int, prefix string) (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines[from:] {
		if f := strings.Fields(l); strings.HasPrefix(l, prefix) && len(f) == 7 {
			data, err := hex.DecodeString(f[6])
			if err != nil {
				data = []byte(f[6])
			}
			out = append(out, f[2]+" "+f[5]+" "+string(data))
		}
	}
	return out
}

func (p *peer) get(t *testing.T, key jami.ID) []string {
	t.Helper()
	from := p.do(t, "get %s", key)
	p.await(t, from, fmt.Sprint("done ", key))
	return p.shown(from, fmt.Sprint("got ", key))
}

func (p *peer) listen(t *testing.T, key jami.ID) func() []string {
	t.Helper()
	from := p.do(t, "listen %s", key)
	p.await(t, from, fmt.Sprint("listening ", key))
	return func() []string { return p.shown(from, fmt.Sprint("told ", key)) }
}

// TestMatrix: in one network of 20 stock nodes and 20 of ours each kind stores, finds and
// is told of what the other stored: plain, signed and encrypted, until it expires, and,
// for signed values, replaced by a later sequence. A value that is not signed cannot be
// replaced (§1.7): there, the cell says that the first one stays.
func TestMatrix(t *testing.T) {
	program := buildPeer(t)
	w := newWorld(t, 20, 10, 6)
	var peers []*peer
	for range 4 {
		peers = append(peers, startPeer(t, program, w.stock[0].port))
	}
	time.Sleep(2 * time.Second) // stock nodes say nothing of when they are ready
	kinds := []struct {
		name           string
		writer, reader member
		other          member // that does not listen: a stock listener's get also gives what was replaced
	}{
		{"stock", peers[0], peers[1], peers[2]},
		{"ours", own{w.ours[3], map[uint64]uint16{}}, own{w.ours[11], nil}, own{w.ours[12], nil}},
	}
	type cell struct {
		row, column string
		ok          bool
		saw         []string
	}
	var mu sync.Mutex
	cells := map[string]cell{}
	note := func(row, column string, ok bool, saw []string) {
		mu.Lock()
		defer mu.Unlock()
		cells[row+"/"+column] = cell{row, column, ok, saw}
	}
	soon := func(ok func() bool) bool {
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if ok() {
				return true
			}
		}
		return false
	}
	has := func(all []string, want string) bool {
		for _, s := range all {
			if s == want {
				return true
			}
		}
		return false
	}
	var rows, columns []string
	var ends []func()
	for _, a := range kinds {
		for _, form := range []string{"plain", "signed", "encrypted"} {
			row := fmt.Sprintf("%-5s %s", a.name, form)
			rows = append(rows, row)
			for _, b := range kinds {
				if len(rows) == 1 {
					columns = append(columns, b.name+" get", b.name+" listen", b.name+" update", b.name+" expiry")
				}
				key := jami.HashKey(row + b.name)
				told := b.reader.listen(t, key)
				time.Sleep(500 * time.Millisecond) // stock nodes say nothing of when they are told
				// Two values: one that is replaced, one that ends in half a minute.
				if !a.writer.put(t, key, 1, 0, form, "first", b.reader.public()) || !a.writer.put(t, key, 2, 30, form, "brief", b.reader.public()) {
					t.Errorf("%s for %s: not put", row, b.name)
				}
				ended := time.Now().Add(30 * time.Second)
				note(row, b.name+" listen", soon(func() bool { return has(told(), "+ "+form+" first") && has(told(), "+ "+form+" brief") }), told())
				got := b.reader.get(t, key)
				note(row, b.name+" get", has(got, "+ "+form+" first") && has(got, "+ "+form+" brief"), got)
				if form == "signed" {
					ok := a.writer.update(t, key, 1, "second")
					if b.name != "stock" { // its listeners are told of a value once, and not of what replaces it
						ok = ok && soon(func() bool { return has(told(), "+ signed second") })
					}
					got = b.other.get(t, key)
					note(row, b.name+" update", ok && has(got, "+ signed second") && !has(got, "+ signed first"), append(got, told()...))
				} else {
					a.writer.put(t, key, 1, 0, form, "second", b.reader.public())
					got = b.reader.get(t, key)
					note(row, b.name+" update", has(got, "+ "+form+" first"), got)
				}
				ends = append(ends, func() {
					if form == "encrypted" { // its type does not show: it lives for ten minutes, and half a minute less
						ended = ended.Add(9 * time.Minute)
						if testing.Short() {
							return
						}
					}
					time.Sleep(time.Until(ended))
					gone := soon(func() bool { return has(told(), "- "+form+" brief") })
					got := b.reader.get(t, key)
					note(row, b.name+" expiry", gone && !has(got, "+ "+form+" brief"), append(got, told()...))
				})
			}
		}
	}
	for _, end := range ends {
		end()
	}
	var out strings.Builder
	fmt.Fprintf(&out, "\n%-16s", "writer")
	for _, c := range columns {
		fmt.Fprintf(&out, " %-13s", c)
	}
	for _, row := range rows {
		fmt.Fprintf(&out, "\n%-16s", row)
		for _, column := range columns {
			c, there := cells[row+"/"+column]
			word := "FAILED"
			switch {
			case !there:
				word = "not waited"
			case c.ok && strings.HasSuffix(column, "update") && !strings.HasSuffix(row, "signed"):
				word = "first stays"
			case c.ok:
				word = "ok"
			default:
				t.Errorf("%s, %s: saw %.300q", row, column, c.saw)
			}
			fmt.Fprintf(&out, " %-13s", word)
		}
	}
	t.Log(out.String())
	w.clean(t)
}
