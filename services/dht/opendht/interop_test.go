//go:build interop

package opendht

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// These tests run against Debian's dhtnode and python3-opendht on loopback.

func (p *python) mustGet(t *testing.T, key overlay.Key, want ...[]byte) {
	t.Helper()
	var got [][]byte
	for _, v := range p.do(t, "get", key, nil).Values {
		got = append(got, v.Data)
	}
	slices.SortFunc(got, bytes.Compare)
	slices.SortFunc(want, bytes.Compare)
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("python got %d values of %.60q, want %d of %.60q", len(got), got, len(want), want)
	}
}

// world is nodes of ours and stock ones in one network; args are dhtnode's.
type world struct {
	ours   []*Node
	stock  []*stock
	python []*python
}

func newWorld(t *testing.T, ours, stocks, pythons int, args ...string) *world {
	t.Helper()
	w := &world{}
	w.stock = append(w.stock, dhtnode(t, "", args...))
	first := fmt.Sprintf("127.0.0.1:%d", w.stock[0].port)
	for range stocks - 1 {
		w.stock = append(w.stock, dhtnode(t, first, args...))
	}
	for range pythons {
		w.python = append(w.python, startPython(t, w.stock[0].port))
	}
	for i := range ours {
		boot := first
		if i%2 == 1 { // some meet the network through one of ours
			boot = w.ours[0].Node().Addresses[0]
		}
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		w.ours = append(w.ours, start(t, 0, func(o *Options) { o.Key, o.Bootstrap = k, []string{boot} }))
	}
	w.wait(t, "all know most others", func() (bool, any) {
		least := 1000
		for _, n := range w.ours {
			least = min(least, n.Node().Peers)
		}
		return least >= min(ours+stocks+pythons-1, 12), least
	})
	time.Sleep(2 * time.Second) // stock nodes say nothing of when they are ready
	return w
}

func (w *world) wait(t *testing.T, what string, ok func() (bool, any)) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		done, saw := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: last saw %v", what, saw)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// clean fails when a stock node answered one of ours with an error, or not at all.
func (w *world) clean(t *testing.T) {
	t.Helper()
	for i, n := range w.ours {
		if s := n.Stats(); s.Errors != 0 || s.Unanswered != 0 || s.Malformed != 0 {
			t.Errorf("node %d: %+v", i, s)
		}
	}
}

func hashed(text string) overlay.Key { return overlay.Key(jami.HashKey(text)) }

func (w *world) put(t *testing.T, i int, v overlay.Value, permanent bool) overlay.Stored {
	t.Helper()
	s, err := w.ours[i].Put(t.Context(), v, permanent)
	if err != nil {
		t.Fatal(err)
	}
	if s.Peers < 4 {
		t.Errorf("put at %d nodes", s.Peers)
	}
	return s
}

// text is the data of a value as a stock node writes it.
func text(s string) []byte { return []byte(s) }

func plainValue(t *testing.T, key overlay.Key, data []byte) overlay.Value {
	t.Helper()
	b, err := (&jami.Value{ID: uint64(time.Now().UnixNano()), Data: data, UserType: "text/plain"}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return overlay.Value{Key: key, Data: b}
}

func (w *world) mustGet(t *testing.T, i int, key overlay.Key, want ...string) []overlay.Value {
	t.Helper()
	vs, err := w.ours[i].Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range vs {
		if p, err := jami.ParseValue(v.Data); err == nil && !p.Encrypted() {
			got = append(got, string(p.Data))
			continue
		}
		got = append(got, string(v.Data))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("node %d got %.80q, want %.80q", i, got, want)
	}
	return vs
}

func TestInterop(t *testing.T) {
	w := newWorld(t, 10, 7, 3, "-i")
	t.Run("Plain", func(t *testing.T) { interopPlain(t, w) })
	t.Run("Large", func(t *testing.T) { interopLarge(t, w) })
	t.Run("Listen", func(t *testing.T) { interopListen(t, w) })
	t.Run("Signed", func(t *testing.T) { interopSigned(t, w) })
	t.Run("Encrypted", func(t *testing.T) { interopEncrypted(t, w) })
	t.Run("PermanentAndExpiry", func(t *testing.T) { interopExpiry(t, w) })
	w.clean(t)
}

func interopPlain(t *testing.T, w *world) {
	for i := range 5 {
		key := hashed(fmt.Sprint("plain", i))
		w.stock[i].do(t, "p plain%d from-stock", i)
		w.stock[i].find(t, 10*time.Second, `Put: success`)
		e := w.python[i%3].do(t, "put", key, text("from-python"))
		if !e.OK {
			t.Error("python's put failed")
		}
		w.put(t, i, plainValue(t, key, text("from-ours")), false)
		for j := range w.ours {
			w.mustGet(t, j, key, "from-stock", "from-python", "from-ours")
		}
		for _, p := range w.python {
			p.mustGet(t, key, text("from-stock"), text("from-python"), text("from-ours"))
		}
		for _, s := range w.stock {
			s.do(t, "g plain%d", i)
			got := s.find(t, 10*time.Second, `(?s)(.*)Get: completed, took [^(]*\(total (\d+)\)`)
			if got[2] != "3" || !strings.Contains(got[1], `"from-ours"`) {
				t.Errorf("stock got %s", got[0])
			}
		}
	}
	s := w.stock[2]
	s.do(t, "q plain1")
	if got := s.find(t, 10*time.Second, `(?s)(.*)Query: completed`)[1]; !strings.Contains(got, "Index[Id:") { // it writes one of them only
		t.Errorf("a query of fields found %s", got)
	}
}

func interopLarge(t *testing.T, w *world) {
	for i, size := range []int{599, 600, 1281, 5600, 30_000, 64_000} {
		key := hashed(fmt.Sprint("large", i))
		began := time.Now()
		mine, theirs := bytes.Repeat([]byte{'m'}, size), bytes.Repeat([]byte{'t'}, size)
		w.put(t, i, plainValue(t, key, mine), false)
		if e := w.python[i%3].do(t, "put", key, theirs); !e.OK {
			t.Errorf("%d bytes: python's put failed", size)
		}
		put := time.Since(began)
		w.mustGet(t, 9-i, key, string(mine), string(theirs))
		got := time.Since(began)
		w.python[(i+1)%3].mustGet(t, key, mine, theirs)
		t.Logf("%d bytes: put %s, got %s, python got %s", size, put, got-put, time.Since(began)-got)
	}
}

// heard collects changes.
type heard struct {
	mu  sync.Mutex
	got []string
}

func (h *heard) add(c overlay.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	data := c.Value.Data
	if p, err := jami.ParseValue(data); err == nil {
		data = p.Data
	}
	sign := "+"
	if c.Expired {
		sign = "-"
	}
	h.got = append(h.got, sign+string(data))
}

func (h *heard) wait(t *testing.T, w *world, want ...string) {
	t.Helper()
	w.wait(t, fmt.Sprint(want), func() (bool, any) {
		h.mu.Lock()
		defer h.mu.Unlock()
		got := slices.Clone(h.got)
		slices.Sort(got)
		slices.Sort(want)
		return slices.Equal(got, want), got
	})
}

func interopListen(t *testing.T, w *world) {
	key := hashed("listen")
	w.stock[0].do(t, "l listen")
	w.stock[0].find(t, 10*time.Second, `Listening, token`)
	w.python[0].do(t, "listen", key, nil)
	var ours [3]heard
	for i := range ours {
		_, stop, err := w.ours[i].Listen(t.Context(), key, ours[i].add)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	time.Sleep(time.Second) // stock listeners say nothing of when they are there
	w.put(t, 5, plainValue(t, key, text("from-ours")), false)
	w.stock[0].find(t, 10*time.Second, `Listen: found 1 values[^\n]*\n[^\n]*"from-ours"`)
	w.python[0].find(t, 10*time.Second, `"told".*"expired": false.*`+base64.StdEncoding.EncodeToString(text("from-ours")))
	w.stock[3].do(t, "p listen from-stock")
	w.python[1].do(t, "put", key, text("from-python"))
	big := strings.Repeat("b", 9000)
	w.python[2].do(t, "put", key, text(big))
	mine := strings.Repeat("m", 9000)
	w.put(t, 6, plainValue(t, key, text(mine)), false)
	for i := range ours {
		ours[i].wait(t, w, "+from-ours", "+from-stock", "+from-python", "+"+big, "+"+mine)
	}
	w.python[0].find(t, 10*time.Second, `"told".*"expired": false.*`+base64.StdEncoding.EncodeToString(text(mine)))
	w.python[0].do(t, "cancel", key, nil)
}

func interopSigned(t *testing.T, w *world) {
	w.stock[1].do(t, "s signed from-stock")
	w.stock[1].find(t, 10*time.Second, `Put signed: success`)
	key := hashed("signed")
	vs := w.mustGet(t, 4, key, "from-stock")
	if len(vs) == 1 && vs[0].Writer != w.stock[1].keyID {
		t.Errorf("writer %s, want %s", vs[0].Writer, w.stock[1].keyID)
	}
	// What ours signs replaces what it signed before, at stock nodes, too.
	w.stock[2].do(t, "l signed2")
	w.stock[2].find(t, 10*time.Second, `Listening, token`)
	var other heard
	_, stop, err := w.ours[8].Listen(t.Context(), hashed("signed2"), other.add)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for i, data := range []string{"one", "two", "three"} {
		w.put(t, 3, overlay.Value{Key: hashed("signed2"), ID: 5, Data: text(data)}, i == 1)
		if i == 0 { // stock listeners are told of a value once, and not of what replaces it
			w.stock[2].find(t, 10*time.Second, `Listen: found 1 values[^\n]*\n[^\n]*signed \(v\d+\)[^\n]*\n`)
		}
		w.mustGet(t, 7, hashed("signed2"), data)
		s := w.stock[4]
		s.do(t, "g signed2")
		if got := s.find(t, 10*time.Second, `(?s)(.*)Get: completed`)[1]; !strings.Contains(got, hex.EncodeToString(text(data))) && !strings.Contains(got, data) {
			t.Errorf("stock got %s after %q", got, data)
		}
	}
	other.wait(t, w, "+one", "+two", "+three")
	if !w.ours[3].Cancel(t.Context(), hashed("signed2"), 5) {
		t.Error("not cancelled")
	}
	w.mustGet(t, 7, hashed("signed2"))
	other.wait(t, w, "+one", "+two", "+three", "-three")
}

// person is a device with its chain, as an account of Jami has it.
func person(t *testing.T) (*rsa.PrivateKey, []*x509.Certificate) {
	t.Helper()
	var k [3]*rsa.PrivateKey
	for i := range k {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		k[i] = key
	}
	now := time.Now()
	ca, err := jami.NewCA(k[0], now)
	if err != nil {
		t.Fatal(err)
	}
	acc, err := jami.NewAccount(&k[1].PublicKey, ca, k[0], now)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := jami.NewDevice(&k[2].PublicKey, acc, k[1], now)
	if err != nil {
		t.Fatal(err)
	}
	return k[2], []*x509.Certificate{dev, acc, ca}
}

func interopEncrypted(t *testing.T, w *world) {
	device, chain := person(t)
	id, _, err := jami.PublicIDs(&device.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	data, err := jami.PackBin(jami.MarshalChain(chain...))
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, 2, overlay.Value{Key: overlay.Key(id), ID: 1, Type: mapping.TypeCertificate, Data: data}, true)
	// A stock node finds the certificate and encrypts to it.
	var inbox heard
	var cipher overlay.Value
	_, stop, err := w.ours[6].Listen(t.Context(), hashed("inbox"), func(c overlay.Change) {
		cipher = c.Value
		inbox.add(overlay.Change{Value: overlay.Value{Data: text("x")}})
	})
	if err != nil {
		t.Fatal(err)
	}
	w.stock[5].do(t, "e inbox %s secret-from-stock", id)
	w.stock[5].find(t, 10*time.Second, `Put encrypted: success`)
	inbox.wait(t, w, "+x")
	stop()
	p, err := jami.ParseValue(cipher.Data)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := p.Decrypt(device)
	if err != nil || string(clear.Data) != "secret-from-stock" || clear.Signer().String() != w.stock[5].keyID {
		t.Errorf("%+v, %v", clear, err)
	}
	// And the other way: a stock node's certificate is found, and it reads what is for it.
	s := w.stock[6]
	raw, err := hex.DecodeString(s.keyID)
	if err != nil {
		t.Fatal(err)
	}
	vs, err := w.ours[1].Get(t.Context(), overlay.Key(raw))
	if err != nil || len(vs) != 1 || vs[0].Type != mapping.TypeCertificate {
		t.Fatalf("certificate of a stock node: %+v, %v", vs, err)
	}
	pem, err := jami.ParseBin(vs[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := jami.ParseCerts(pem)
	if err != nil {
		t.Fatal(err)
	}
	v := &jami.Value{ID: 77, Data: text("secret-from-ours"), UserType: "text/plain"}
	enc, err := v.EncryptTo(certs[0].PublicKey.(*rsa.PublicKey), device)
	if err != nil {
		t.Fatal(err)
	}
	b, err := enc.Pack()
	if err != nil {
		t.Fatal(err)
	}
	s.do(t, "l inbox2")
	s.find(t, 10*time.Second, `Listening, token`)
	w.put(t, 0, overlay.Value{Key: hashed("inbox2"), Data: b}, false)
	got := s.find(t, 10*time.Second, `Listen: found 1 values[^\n]*\n([^\n]*)\n`)[1]
	if !strings.Contains(got, "decrypted") || !strings.Contains(got, "secret-from-ours") {
		t.Errorf("stock node has %s", got)
	}
}

func interopExpiry(t *testing.T, w *world) {
	key := hashed("expiry")
	short := func(data string) overlay.Value {
		b, err := (&jami.Value{ID: uint64(time.Now().UnixNano()), Type: 5, Data: text(data), UserType: "text/plain"}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		return overlay.Value{Key: key, Type: 5, Data: b}
	}
	var ours heard
	_, stop, err := w.ours[9].Listen(t.Context(), key, ours.add)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	w.python[1].do(t, "listen", key, nil)
	w.put(t, 0, short("short"), false)
	kept := w.put(t, 1, short("kept"), true)
	begin := time.Now()
	w.stock[0].do(t, "pp expiry stock-kept")
	stockID := w.stock[0].find(t, 10*time.Second, `Put: success.*Value ID: ([0-9a-f]+)`)[1]
	ours.wait(t, w, "+short", "+kept", "+stock-kept")
	t.Logf("waiting for the end of a value that lives a minute")
	time.Sleep(time.Until(begin.Add(55 * time.Second)))
	w.mustGet(t, 4, key, "short", "kept", "stock-kept")
	time.Sleep(time.Until(begin.Add(65 * time.Second)))
	ours.wait(t, w, "+short", "+kept", "+stock-kept", "-short")
	w.python[1].find(t, 10*time.Second, `"told".*"expired": true.*`+base64.StdEncoding.EncodeToString(text("short")))
	w.mustGet(t, 4, key, "kept", "stock-kept")
	w.python[0].mustGet(t, key, text("kept"), text("stock-kept"))
	if !w.ours[1].Cancel(t.Context(), key, kept.Value.ID) {
		t.Error("not cancelled")
	}
	w.stock[0].do(t, "cpp expiry %s", stockID)
	time.Sleep(time.Until(begin.Add(125 * time.Second)))
	w.mustGet(t, 4, key, "stock-kept")
	w.python[0].mustGet(t, key, text("stock-kept"))
}

// TestInteropNetworks: another network id than 0, IPv6, and both families at once.
func TestInteropNetworks(t *testing.T) {
	a := dhtnode(t, "", "-n", "42")
	b := dhtnode(t, fmt.Sprintf("127.0.0.1:%d", a.port), "-n", "42")
	four := start(t, 0, func(o *Options) { o.Network, o.Bootstrap = 42, []string{fmt.Sprintf("127.0.0.1:%d", a.port)} })
	six := start(t, 1, func(o *Options) {
		o.Listen, o.Network, o.Bootstrap = "[::1]:0", 42, []string{fmt.Sprintf("[::1]:%d", b.port)}
	})
	both := start(t, 2, func(o *Options) {
		o.Listen, o.Network = ":0", 42
		o.Bootstrap = []string{fmt.Sprintf("127.0.0.1:%d", a.port), fmt.Sprintf("[::1]:%d", b.port)}
	})
	other := start(t, 3, func(o *Options) { o.Bootstrap = []string{fmt.Sprintf("127.0.0.1:%d", a.port)} })
	w := &world{ours: []*Node{four, six, both}, stock: []*stock{a, b}}
	w.wait(t, "all know two", func() (bool, any) {
		least := 1000
		for _, n := range w.ours {
			least = min(least, n.Node().Peers)
		}
		return least >= 2, least
	})
	a.do(t, "p nets from-stock")
	a.find(t, 10*time.Second, `Put: success`)
	if _, err := both.Put(t.Context(), plainValue(t, hashed("nets"), text("from-ours")), false); err != nil {
		t.Fatal(err)
	}
	for i := range w.ours {
		w.mustGet(t, i, hashed("nets"), "from-stock", "from-ours")
	}
	b.do(t, "g nets")
	if got := b.find(t, 10*time.Second, `(?s)(.*)Get: completed, took [^(]*\(total (\d+)\)`); got[2] != "2" {
		t.Errorf("stock got %s", got[0])
	}
	if n := other.Node().Peers; n != 0 {
		t.Errorf("a node of another network knows %d", n)
	}
	w.clean(t)
}

// TestInteropLAN: nodes of the local network find one another without a bootstrap node,
// in each family. It runs only in a network of its own that has multicast:
//
//	unshare -n sh -c 'ip link set lo up; ip link add lan type veth peer name wan; ip link set lan up; ip link set wan up
//	ip addr add 192.0.2.1/24 dev lan; ip addr add 2001:db8::1/64 dev lan nodad; ip route add default dev lan; ip -6 route add default dev lan; go test …'
func TestInteropLAN(t *testing.T) {
	lan, err := net.InterfaceByName("lan")
	if err != nil || lan.Flags&net.FlagMulticast == 0 {
		t.Skip("no interface lan with multicast")
	}
	for name, listen := range map[string]string{"IPv4": "192.0.2.1:0", "IPv6": "[2001:db8::1]:0"} {
		t.Run(name, func(t *testing.T) {
			a := start(t, 0, func(o *Options) { o.Listen, o.LAN = listen, true })
			b := start(t, 1, func(o *Options) { o.Listen, o.LAN = listen, true })
			wait(t, func() bool { return a.Node().Peers == 1 && b.Node().Peers == 1 })
		})
	}
	t.Run("Stock", func(t *testing.T) {
		before := start(t, 0, func(o *Options) { o.Listen, o.LAN = ":0", true })
		dhtnode(t, "", "-D")
		after := start(t, 1, func(o *Options) { o.Listen, o.LAN = ":0", true })
		w := &world{}
		w.wait(t, "all three know one another", func() (bool, any) {
			a, b := before.Node().Peers, after.Node().Peers // in both families
			return a >= 2 && b >= 2, []int{a, b}
		})
	})
}
