package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
)

// pool are RSA keys of this test's peers, which it costs time to make.
var pool = sync.OnceValue(func() (keys [8]*rsa.PrivateKey) {
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			keys[i] = k
		})
	}
	wg.Wait()
	return keys
})

// peer is a device of an account that is played by the test.
type peer struct {
	t     testing.TB
	over  *fakeOverlay
	acc   *rsa.PrivateKey
	key   *rsa.PrivateKey
	chain *trust.Chain
	from  string // as which writer it puts
}

var valueIDs atomic.Uint64

// newPeer makes a device of an account of its own.
func newPeer(t testing.TB, over *fakeOverlay, acc, key *rsa.PrivateKey) *peer {
	t.Helper()
	ca := pool()[7]
	top, err := jami.NewCA(ca, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := jami.NewAccount(&acc.PublicKey, top, ca, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return peerOf(t, over, acc, key, cert, top)
}

// peerOf makes a device of an account that is there.
func peerOf(t testing.TB, over *fakeOverlay, acc, key *rsa.PrivateKey, above ...*x509.Certificate) *peer {
	t.Helper()
	dev, err := jami.NewDevice(&key.PublicKey, above[0], acc, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	chain, err := new(trust.Rules).Check(append([]*x509.Certificate{dev}, above...))
	if err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, over: over, acc: acc, key: key, chain: chain, from: chain.DeviceShort.String()}
}

func (p *peer) id() string { return p.chain.JamiID.String() }

// publish puts its certificate and its announcement into the overlay.
func (p *peer) publish() {
	p.t.Helper()
	packed, err := jami.PackBin(p.chain.PEM())
	if err != nil {
		p.t.Fatal(err)
	}
	p.over.put(contract.DHTValue{Key: p.chain.DeviceShort.String(), ID: certificateID, Type: typeCertificate, Data: packed, Writer: p.from})
	p.announce()
}

func (p *peer) announce() {
	p.t.Helper()
	r, err := jami.NewReceipt(p.acc, p.key.Public(), "")
	if err != nil {
		p.t.Fatal(err)
	}
	r.Announcement.ID = valueIDs.Add(1)
	ann, err := r.Announcement.Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	p.over.put(contract.DHTValue{Key: p.id(), ID: r.Announcement.ID, Data: ann, Writer: p.from})
}

// revoke has its account revoke the device.
func (p *peer) revoke() {
	p.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now(), NextUpdate: p.chain.Account.NotAfter,
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: p.chain.Device.SerialNumber, RevocationTime: time.Now()}}}
	der, err := x509.CreateRevocationList(rand.Reader, l, p.chain.Account, p.acc)
	if err != nil {
		p.t.Fatal(err)
	}
	packed, err := jami.PackBin(der)
	if err != nil {
		p.t.Fatal(err)
	}
	p.over.put(contract.DHTValue{Key: p.id(), ID: valueIDs.Add(1), Data: packed, Writer: p.from})
}

// sealed is a value that it signs and encrypts for a device.
func (p *peer) sealed(to *x509.Certificate, typ uint16, data []byte) *jami.Value {
	p.t.Helper()
	v, err := (&jami.Value{ID: valueIDs.Add(1), Type: typ, Data: data}).EncryptTo(to.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p *peer) put(to *x509.Certificate, v *jami.Value) {
	p.t.Helper()
	b, err := v.Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	short, _ := jami.CertIDs(to)
	p.over.put(contract.DHTValue{Key: jami.InboxKey(short).String(), ID: v.ID, Data: b, Writer: p.from})
}

func (p *peer) request(to *x509.Certificate, r jami.TrustRequest) *jami.Value {
	p.t.Helper()
	if r.Service == "" {
		r.Service = jami.TrustService
	}
	data, err := r.Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	v := p.sealed(to, jami.TypeTrustRequest, data)
	p.put(to, v)
	return v
}

func (p *peer) sync(to *x509.Certificate, s *jami.DeviceSync) *jami.Value {
	p.t.Helper()
	data, err := s.Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	v := p.sealed(to, jami.TypeData, data)
	p.put(to, v)
	return v
}

// got are the messages at its inbox that it can open, by type.
func (p *peer) got(typ uint16) (out [][]byte) {
	p.t.Helper()
	for _, dv := range p.over.get(jami.InboxKey(p.chain.DeviceShort).String()) {
		v, err := jami.ParseValue(dv.Data)
		if err != nil {
			p.t.Fatal(err)
		}
		clear, err := v.Decrypt(p.key)
		if errors.Is(err, jami.ErrDecrypt) {
			continue // it confirmed something there, for another
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if clear.Type == typ {
			out = append(out, clear.Data)
		}
	}
	return out
}

func (p *peer) gotRequests(confirm bool) (out []*jami.TrustRequest) {
	p.t.Helper()
	for _, b := range p.got(jami.TypeTrustRequest) {
		r, err := jami.ParseTrustRequest(b)
		if err != nil {
			p.t.Fatal(err)
		}
		if r.Confirm == confirm {
			out = append(out, r)
		}
	}
	return out
}

func (p *peer) gotSync() (newest *jami.DeviceSync) {
	p.t.Helper()
	for _, b := range p.got(jami.TypeData) {
		s, err := jami.ParseDeviceSync(b)
		if err != nil {
			p.t.Fatal(err)
		}
		if newest == nil || s.Date > newest.Date {
			newest = s
		}
	}
	return newest
}

// field is a node's identity with an overlay and peers of the test.
type field struct {
	t    *testing.T
	srv  *bustest.Server
	svc  *Service
	over *fakeOverlay
	cli  *bus.Conn
	acc  contract.Account

	reg *prometheus.Registry

	events chan *contract.ContactRequest
}

func newField(t *testing.T, set ...func(*Service)) *field {
	t.Helper()
	f := &field{t: t, srv: bustest.Start(t), events: make(chan *contract.ContactRequest, 1024)}
	f.cli = f.srv.Conn("cli")
	f.start(t, set...)
	return f
}

// start starts identity until t ends, and the first time the overlay.
func (f *field) start(t *testing.T, set ...func(*Service)) {
	f.t.Helper()
	env := start(t, f.srv, readyKeys, append(set, func(s *Service) {
		f.svc, s.syncRest = s, 10*time.Millisecond
	})...)
	f.reg = env.Registry
	f.acc = waitState(f.t, f.cli, stateReady).Account
	f.cli.SetAccount(f.acc.ID)
	if f.over == nil {
		f.over = startOverlay(f.t, f.srv, f.acc.ID)
		sub, err := bus.Subscribe(f.cli, contract.RequestEvents, func(_ context.Context, _ []string, r *contract.ContactRequest) { f.events <- r })
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(sub.Stop)
	}
	eventually(f.t, "the inbox is listened to", func() bool { return f.over.listened(f.inboxKey()) })
}

func (f *field) host() *hosted           { return f.svc.hosts[0] }
func (f *field) cert() *x509.Certificate { return f.host().acc.Chain.Device }
func (f *field) inboxKey() string        { return jami.InboxKey(f.host().acc.Chain.DeviceShort).String() }

func (f *field) requests() []contract.ContactRequest {
	f.t.Helper()
	l, err := bus.Call(f.t.Context(), f.cli, contract.RequestList, &contract.None{})
	if err != nil {
		f.t.Fatal(err)
	}
	return l.Requests
}

func (f *field) contact(id jami.ID) contract.Contact {
	c, _ := f.host().acc.Contact(id)
	return contactView(id, c)
}

func (f *field) set(id, change string) {
	f.t.Helper()
	if _, err := bus.Call(f.t.Context(), f.cli, contract.ContactSetCmd, &contract.ContactChange{ID: id, Change: change}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *field) answer(id, answer string) error {
	_, err := bus.Call(f.t.Context(), f.cli, contract.RequestAnswerCmd, &contract.RequestAnswer{ID: id, Answer: answer})
	return err
}

// counted is how many values had a verdict.
func (f *field) counted(v verdict) int {
	return f.metric("parley_identity_inbox_values_total", string(v))
}

// metric is the sum of a counter's series that have the label.
func (f *field) metric(name string, label ...string) (sum int) {
	f.t.Helper()
	all, err := f.reg.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, m := range all {
		for _, c := range m.GetMetric() {
			has := len(label) == 0
			for _, l := range c.GetLabel() {
				has = has || l.GetValue() == label[0]
			}
			if has && m.GetName() == name {
				sum += int(c.GetCounter().GetValue())
			}
		}
	}
	return sum
}

const nonsense = "no msgpack"

// damage puts nonsense into a file of an account that is not in use.
func damage(t *testing.T, a *account.Account, name string) string {
	t.Helper()
	path := filepath.Join(a.Dir, name)
	if err := os.WriteFile(path, []byte(nonsense), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func damaged(t *testing.T, path string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != nonsense {
		t.Errorf("%q, %v", b, err)
	}
}
