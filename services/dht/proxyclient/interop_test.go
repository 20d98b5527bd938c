//go:build interop

package proxyclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
	"github.com/parley-jami/parley/services/dht/stocktest"
)

// These tests run against Debian's dhtnode and python3-opendht on loopback.

// stockProxy is a dhtnode with a proxy.
type stockProxy struct {
	*stocktest.Node
	url string
}

func startProxy(t *testing.T, bootstrap *stockProxy, args ...string) *stockProxy {
	t.Helper()
	port, boot := freeTCP(t), ""
	if bootstrap != nil {
		boot = fmt.Sprintf("127.0.0.1:%d", bootstrap.Port)
	}
	n := stocktest.Start(t, boot, append(args, "--proxyserver", strconv.Itoa(port))...)
	return &stockProxy{n, fmt.Sprintf("http://127.0.0.1:%d", port)}
}

func freeTCP(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// waitJoined returns when what is put at one proxy is with others, too: stock nodes say
// nothing of when they are ready, and say it of themselves minutes later.
func waitJoined(t *testing.T, n *Node, probe string) {
	t.Helper()
	wait(t, "the proxy is in the network", func() (bool, any) {
		st, err := n.Put(ctx(t, 5*time.Second), overlay.Value{Key: hashed(probe), ID: 1, Data: []byte("probe")}, false)
		if err != nil {
			return false, err
		}
		n.Cancel(ctx(t, 5*time.Second), hashed(probe), 1)
		return st.Peers > 0, st
	})
}

func hashed(text string) overlay.Key { return overlay.Key(jami.HashKey(text)) }

// TestInteropConformance: what every overlay has to do, with clients at two stock proxies.
func TestInteropConformance(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, n int) []overlay.Overlay {
		t.Helper()
		proxies := []*stockProxy{startProxy(t, nil)}
		if n > 1 {
			proxies = append(proxies, startProxy(t, proxies[0]))
		}
		for i, p := range proxies {
			if n > 1 {
				probe := start(t, 5, p.url)
				waitJoined(t, probe, fmt.Sprint("probe", i))
			}
		}
		var out []overlay.Overlay
		for i := range n {
			url := proxies[i%len(proxies)].url
			node := start(t, i, url)
			waitUp(t, node, url)
			out = append(out, node)
		}
		return out
	})
}

// world is stock proxies and nodes of python3-opendht in one network, and a client that has
// both proxies.
type world struct {
	// Without an identity: a stock proxy that has one hands on no encrypted value but those
	// for itself.
	proxies []*stockProxy
	stock   *stocktest.Node // has one
	python  []*stocktest.Python
	ours    *Node
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	first := startProxy(t, nil)
	w.proxies = []*stockProxy{first, startProxy(t, first)}
	w.stock = stocktest.Start(t, fmt.Sprintf("127.0.0.1:%d", first.Port), "-i")
	for range 2 {
		w.python = append(w.python, stocktest.StartPython(t, first.Port, "identity"))
	}
	w.ours = start(t, 0, w.proxies[0].url, w.proxies[1].url)
	waitJoined(t, w.ours, "probe")
	return w
}

func (w *world) put(t *testing.T, key overlay.Key, v *jami.Value, permanent bool) {
	t.Helper()
	b, err := v.Pack()
	if err != nil {
		t.Fatal(err)
	}
	st, err := w.ours.Put(ctx(t, 10*time.Second), overlay.Value{Key: key, Type: v.Type, Data: b}, permanent)
	if err != nil || st.Peers != 1 {
		t.Errorf("put: %+v, %v", st, err)
	}
}

// mustGet waits until a get finds just these.
func (w *world) mustGet(t *testing.T, key overlay.Key, want ...string) []overlay.Value {
	t.Helper()
	slices.Sort(want)
	var vs []overlay.Value
	wait(t, fmt.Sprintf("%.80q", want), func() (bool, any) {
		var err error
		vs, err = w.ours.Get(ctx(t, 10*time.Second), key)
		return err == nil && slices.Equal(texts(vs), want), fmt.Sprintf("%.80q, %v", texts(vs), err)
	})
	return vs
}

func pythonGets(t *testing.T, p *stocktest.Python, key overlay.Key, want ...string) {
	t.Helper()
	pythonReads(t, p, "get", key, want...)
}

func pythonReads(t *testing.T, p *stocktest.Python, op string, key overlay.Key, want ...string) stocktest.Event {
	t.Helper()
	e := p.Do(t, op, key, nil)
	var got []string
	for _, v := range e.Values {
		got = append(got, string(v.Data))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("python got %.80q, want %.80q", got, want)
	}
	return e
}

func text(id uint64, data string) *jami.Value {
	return &jami.Value{ID: id, Data: []byte(data), UserType: "text/plain"}
}

func TestInterop(t *testing.T) {
	w := newWorld(t)
	t.Run("Plain", func(t *testing.T) { interopPlain(t, w) })
	t.Run("Signed", func(t *testing.T) { interopSigned(t, w) })
	t.Run("Encrypted", func(t *testing.T) { interopEncrypted(t, w) })
	t.Run("Listen", func(t *testing.T) { interopListen(t, w) })
	t.Run("Expiry", func(t *testing.T) { interopExpiry(t, w) })
	t.Run("ProxyDies", func(t *testing.T) { interopDies(t, w) }) // the last
}

func interopPlain(t *testing.T, w *world) {
	for i, size := range []int{0, 11, 600, 1281, 5600, 30_000, 64_000} {
		key := hashed(fmt.Sprint("plain", i))
		mine, theirs := string(bytes.Repeat([]byte{'m'}, size)), string(bytes.Repeat([]byte{'t'}, size))
		w.put(t, key, text(uint64(i+1), mine), false)
		if e := w.python[0].Do(t, "put", key, []byte(theirs)); !e.OK {
			t.Errorf("%d bytes: python's put failed", size)
		}
		w.mustGet(t, key, mine, theirs)
		pythonGets(t, w.python[1], key, mine, theirs)
	}
}

func interopSigned(t *testing.T, w *world) {
	// By a node with an identity, and by an account's device.
	w.stock.Do(t, "s signed from-stock")
	w.stock.Find(t, 10*time.Second, `Put signed: success`)
	vs := w.mustGet(t, hashed("signed"), "from-stock")
	if vs[0].Writer != w.stock.KeyID {
		t.Errorf("writer %s, want %s", vs[0].Writer, w.stock.KeyID)
	}
	v := text(5, "from-device")
	if err := v.Sign(overlaytest.Keys()[4]); err != nil {
		t.Fatal(err)
	}
	w.put(t, hashed("signed2"), v, true)
	w.mustGet(t, hashed("signed2"), "from-device")
	e := pythonReads(t, w.python[0], "owners", hashed("signed2"), "from-device")
	if len(e.Values) == 1 && e.Values[0].Owner != v.Signer().String() {
		t.Errorf("python says that %s signed, want %s", e.Values[0].Owner, v.Signer())
	}
	// What the node signs replaces what it signed before, and is cancelled.
	for _, data := range []string{"one", "two", "three"} {
		if st, err := w.ours.Put(ctx(t, 10*time.Second), overlay.Value{Key: hashed("signed3"), ID: 7, Data: []byte(data)}, true); err != nil || st.Peers != 1 {
			t.Errorf("%+v, %v", st, err)
		}
		w.mustGet(t, hashed("signed3"), data)
		e := pythonReads(t, w.python[1], "owners", hashed("signed3"), data)
		if len(e.Values) == 1 && e.Values[0].Owner != w.ours.Node().ID {
			t.Errorf("python says that %s signed, want %s", e.Values[0].Owner, w.ours.Node().ID)
		}
	}
	if !w.ours.Cancel(ctx(t, 10*time.Second), hashed("signed3"), 7) {
		t.Error("not cancelled")
	}
	w.mustGet(t, hashed("signed3"))
	pythonGets(t, w.python[1], hashed("signed3"), "")
}

func interopEncrypted(t *testing.T, w *world) {
	device, me := overlaytest.Keys()[3], overlaytest.Keys()[2]
	id, _, err := jami.PublicIDs(&device.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	// The certificate goes into the network through the proxy, and a stock node encrypts
	// to it.
	ca, err := jami.NewCA(me, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dev, err := jami.NewDevice(&device.PublicKey, ca, me, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := jami.PackBin(jami.MarshalChain(dev, ca))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := w.ours.Put(ctx(t, 10*time.Second), overlay.Value{Key: overlay.Key(id), ID: 1, Type: mapping.TypeCertificate, Data: data}, true); err != nil || st.Peers != 1 {
		t.Fatalf("certificate: %+v, %v", st, err)
	}
	w.stock.Do(t, "e inbox %s secret-from-stock", id)
	w.stock.Find(t, 10*time.Second, `Put encrypted: success`)
	var cipher []byte
	wait(t, "the encrypted value", func() (bool, any) {
		vs, err := w.ours.Get(ctx(t, 10*time.Second), hashed("inbox"))
		if len(vs) == 1 {
			cipher = vs[0].Data
		}
		return len(vs) == 1, err
	})
	p, err := jami.ParseValue(cipher)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := p.Decrypt(device)
	if err != nil || string(clear.Data) != "secret-from-stock" || clear.Signer().String() != w.stock.KeyID {
		t.Errorf("%+v, %v", clear, err)
	}
	// And the other way: python's certificate is found through the proxy.
	raw, err := hex.DecodeString(w.python[0].KeyID)
	if err != nil {
		t.Fatal(err)
	}
	vs, err := w.ours.Get(ctx(t, 10*time.Second), overlay.Key(raw))
	if err != nil || len(vs) != 1 || vs[0].Type != mapping.TypeCertificate {
		t.Fatalf("certificate of a node of python: %+v, %v", vs, err)
	}
	pem, err := jami.ParseBin(vs[0].Data)
	if err != nil {
		pem = vs[0].Data
	}
	certs, err := jami.ParseCerts(pem)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := text(77, "secret-from-ours").EncryptTo(certs[0].PublicKey.(*rsa.PublicKey), device)
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, hashed("inbox2"), enc, false)
	e := pythonReads(t, w.python[0], "owners", hashed("inbox2"), "secret-from-ours")
	if len(e.Values) == 1 && e.Values[0].Owner != id.String() {
		t.Errorf("python says that %s wrote it, want %s", e.Values[0].Owner, id)
	}
}

func interopListen(t *testing.T, w *world) {
	key := hashed("listen")
	w.python[0].Do(t, "listen", key, nil)
	var r recorder
	_, stop, err := w.ours.Listen(ctx(t, 10*time.Second), key, r.add)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	w.python[1].Do(t, "put", key, []byte("from-python"))
	r.wait(t, "+from-python")
	w.put(t, key, text(11, "from-ours"), false)
	w.python[0].Find(t, 10*time.Second, `"told".*"expired": false.*`+base64.StdEncoding.EncodeToString([]byte("from-ours")))
	big := string(bytes.Repeat([]byte{'b'}, 60_000))
	w.python[1].Do(t, "put", key, []byte(big))
	r.wait(t, "+from-python", "+from-ours", "+"+big)
	w.python[0].Do(t, "cancel", key, nil)
}

func interopExpiry(t *testing.T, w *world) {
	key := hashed("expiry")
	short := text(21, "short")
	kept := text(22, "kept")
	short.Type, kept.Type = 5, 5 // a minute
	reader := start(t, 1, w.proxies[1].url)
	var r recorder
	_, stop, err := reader.Listen(ctx(t, 10*time.Second), key, r.add)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	began := time.Now()
	w.put(t, key, short, false)
	w.put(t, key, kept, true)
	r.wait(t, "+short", "+kept")
	t.Log("waiting for the end of values that live a minute")
	time.Sleep(time.Until(began.Add(65 * time.Second)))
	r.wait(t, "+short", "+kept", "-short")
	pythonGets(t, w.python[0], key, "kept")
	if !w.ours.Cancel(ctx(t, 10*time.Second), key, 22) { // the proxy lets go of it
		t.Error("not cancelled")
	}
	cancelled := time.Now()
	// It lives for a minute from when the proxy announced it last. A stock proxy now and then does
	// not tell its listeners of the end; the client lets go of what it does not hear of again.
	for end := cancelled.Add(time.Minute + 3*2*pollEvery); !slices.Contains(r.told(), "-kept") && time.Now().Before(end); {
		time.Sleep(2 * time.Second)
	}
	t.Logf("cancelled, a permanent value has ended after %v", time.Since(cancelled))
	r.wait(t, "+short", "+kept", "-short", "-kept")
	pythonGets(t, w.python[0], key)
}

// interopDies: the proxy in use is killed while it has a listener and permanent values.
func interopDies(t *testing.T, w *world) {
	key := hashed("dies")
	var r recorder
	_, stop, err := w.ours.Listen(ctx(t, 10*time.Second), key, r.add)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	w.put(t, key, text(31, "mine"), true)
	w.python[0].Do(t, "put", key, []byte("before"))
	r.wait(t, "+mine", "+before")
	used := slices.IndexFunc(w.proxies, func(p *stockProxy) bool { return p.url == w.ours.Node().Addresses[0] })
	w.proxies[used].Stop()
	w.python[0].Do(t, "put", key, []byte("meanwhile"))
	r.wait(t, "+mine", "+before", "+meanwhile")
	waitUp(t, w.ours, w.proxies[1-used].url)
	w.python[1].Do(t, "put", key, []byte("after"))
	r.wait(t, "+mine", "+before", "+meanwhile", "+after")
	w.mustGet(t, key, "mine", "before", "meanwhile", "after")
	pythonGets(t, w.python[1], key, "mine", "before", "meanwhile", "after")
}

// TestLatency times 500 bytes: put, get of what a node of python put, and from python's put
// until a listener is told.
func TestLatency(t *testing.T) {
	const count, size = 200, 500
	w := newWorld(t)
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	key := hashed("latency listen")
	told := make(chan time.Time, 1)
	_, stop, err := w.ours.Listen(ctx(t, 10*time.Second), key, func(c overlay.Change) { told <- time.Now() })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var times [4][]time.Duration
	timed := func(i int, fn func(context.Context) error) {
		began := time.Now()
		if err := fn(ctx(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		times[i] = append(times[i], time.Since(began))
	}
	other := start(t, 1, w.proxies[1].url)
	waitUp(t, other, w.proxies[1].url)
	for i := range count {
		mine, theirs := hashed(fmt.Sprint("ours", i)), hashed(fmt.Sprint("python", i))
		b, err := (&jami.Value{ID: uint64(i + 1), Data: data}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		timed(0, func(ctx context.Context) error {
			st, err := w.ours.Put(ctx, overlay.Value{Key: mine, Data: b}, false)
			if err == nil && st.Peers != 1 {
				err = fmt.Errorf("%+v", st)
			}
			return err
		})
		timed(1, func(ctx context.Context) error {
			_, err := w.ours.Put(ctx, overlay.Value{Key: mine, Data: data}, false)
			return err
		})
		w.python[0].Do(t, "put", theirs, data)
		timed(2, func(ctx context.Context) error {
			vs, err := w.ours.Get(ctx, theirs)
			if err == nil && len(vs) != 1 {
				err = fmt.Errorf("%d values", len(vs))
			}
			return err
		})
		began := time.Now()
		if _, err := other.Put(ctx(t, 10*time.Second), overlay.Value{Key: key, ID: uint64(i + 1), Data: b}, false); err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-told:
			times[3] = append(times[3], at.Sub(began))
		case <-time.After(20 * time.Second):
			t.Fatal("not told")
		}
	}
	for i, what := range []string{"put", "put, signed here", "get", "listen, from another's put"} {
		slices.Sort(times[i])
		t.Logf("%-26s median %8s, 9 of 10 within %8s", what, times[i][count/2].Round(10*time.Microsecond), times[i][count*9/10].Round(10*time.Microsecond))
	}
}
