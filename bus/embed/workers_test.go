package embed_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/natscreds"
)

// dial connects once with a file of credentials and what it says of TLS.
func dial(t *testing.T, url, creds string, opts ...nats.Option) (*nats.Conn, error) {
	t.Helper()
	a, err := natscreds.ReadAccess(creds)
	if err != nil {
		t.Fatal(err)
	}
	opts = append(opts, nats.UserCredentials(creds), nats.Timeout(10*time.Second))
	if secure, err := natscreds.TLS(a); err != nil {
		t.Fatal(err)
	} else if secure != nil {
		opts = append(opts, nats.Secure(secure))
	}
	nc, err := nats.Connect(url, opts...)
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

func TestRevokedWorkersAreOutForGood(t *testing.T) { atBoth(t, revokedWorkersAreOutForGood) }

func revokedWorkersAreOutForGood(t *testing.T, s *bustest.Server) {
	cli := s.Conn("cli")
	hall1, hall2 := s.Worker("hall1"), s.Worker("hall2")
	closed, said := make(chan struct{}), make(chan error, 4)
	_, err := dial(t, s.URL(), hall2, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { said <- err }))
	if err != nil {
		t.Fatal(err)
	}
	stays, err := dial(t, s.URL(), hall1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again: harmless
		k, err := bus.Call(t.Context(), cli, contract.BusRevokeWorker, &contract.WorkerName{Name: "hall2"})
		if err != nil || k.Name != "hall2" || k.Revoked == nil {
			t.Fatal(k, err)
		}
	}
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("a revoked worker is still connected")
	}
	if err := <-said; !errors.Is(err, nats.ErrAuthRevoked) {
		t.Error(err)
	}
	if _, err := dial(t, s.URL(), hall2); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a revoked worker is let in: %v", err)
	}
	again := s.Worker("hall2") // the name is free, with another key
	s.Restart()
	if _, err := dial(t, s.URL(), hall2); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("after a restart a revoked worker is let in: %v", err)
	}
	for _, file := range []string{again, hall1} {
		if _, err := dial(t, s.URL(), file); err != nil {
			t.Errorf("%s is not let in: %v", file, err)
		}
	}
	if stays.IsClosed() {
		t.Error("another worker was cut off for good")
	}
	cli = s.Conn("cli")
	list, err := bus.Call(t.Context(), cli, contract.BusWorkers, &contract.None{})
	if err != nil || len(list.Workers) != 2 || list.Workers[1].Name != "hall2" || list.Workers[1].Revoked != nil {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := bus.Call(t.Context(), cli, contract.BusRevokeWorker, &contract.WorkerName{Name: "hall3"}); !errors.Is(err, contract.ErrNotFound) {
		t.Error(err)
	}
	old, err := natscreds.Read(hall2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Call(t.Context(), cli, contract.BusAddWorker, &contract.WorkerAdd{Name: "hall3", UserKey: old.User.Subject}); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("a revoked key is another worker's: %v", err)
	}
}

func TestWorkersThatAreNotAdded(t *testing.T) {
	s := bustest.StartWith(t, func(c *config.Config) { c.Media.Worker = "m1" })
	cli := s.Conn("cli")
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	s.Worker("hall1")
	for name, c := range map[string]struct {
		q    contract.WorkerAdd
		want *contract.Error
	}{
		"no name":      {contract.WorkerAdd{UserKey: pub}, contract.ErrBadRequest},
		"all":          {contract.WorkerAdd{Name: "*", UserKey: pub}, contract.ErrBadRequest},
		"two tokens":   {contract.WorkerAdd{Name: "a.b", UserKey: pub}, contract.ErrBadRequest},
		"a template":   {contract.WorkerAdd{Name: "{{subject()}}", UserKey: pub}, contract.ErrBadRequest},
		"a path":       {contract.WorkerAdd{Name: "../x", UserKey: pub}, contract.ErrBadRequest},
		"the node's":   {contract.WorkerAdd{Name: "m1", UserKey: pub}, contract.ErrExists},
		"there":        {contract.WorkerAdd{Name: "hall1", UserKey: pub}, contract.ErrExists},
		"no key":       {contract.WorkerAdd{Name: "hall2", UserKey: "U"}, contract.ErrBadRequest},
		"another kind": {contract.WorkerAdd{Name: "hall2", UserKey: "A" + pub[1:]}, contract.ErrBadRequest},
	} {
		if _, err := bus.Call(t.Context(), cli, contract.BusAddWorker, &c.q); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Its name is signed: whoever changes it has no signature.
	f, err := natscreds.Read(s.Worker("hall2"))
	if err != nil {
		t.Fatal(err)
	}
	f.User.Name, f.User.Subject = "m1", pub
	forged, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := f.User.Encode(forged)
	if err != nil {
		t.Fatal(err)
	}
	_, err = nats.Connect(s.URL(), nats.UserJWT(func() (string, error) { return tok, nil }, kp.Sign), nats.Timeout(10*time.Second))
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a forged name is let in: %v", err)
	}
}

// Who would stand by for a conference that holds no lease is not added, and not welcome with credentials from before.
func TestNobodyStandsByWithoutALease(t *testing.T) {
	s := bustest.StartWith(t, func(c *config.Config) { c.Rooms.Lease = true })
	q := contract.WorkerAdd{Name: "spare", Service: "conference"}
	creds, err := bustest.AddWorker(t.Context(), s.Conn("cli"), q, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	hello := func() error {
		c, err := bus.Connect(t.Context(), bus.Options{URL: s.URL(), Creds: creds, Name: bus.GuestUser("conference", "spare"), Log: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = bus.Call(t.Context(), c, contract.BusWorkerHello, &contract.WorkerHello{Version: "9.9", Contract: contract.Version, Instance: "i"}, "spare")
		return err
	}
	if err := hello(); err != nil {
		t.Error(err)
	}
	l, err := bus.Call(t.Context(), s.Conn("cli"), contract.BusWorkers, &contract.None{})
	if err != nil || len(l.Workers) != 1 || !l.Workers[0].Here {
		t.Errorf("who said hello is here: %+v, %v", l, err)
	}
	s.Stop()
	data := s.Config().Data
	s = bustest.StartWith(t, func(c *config.Config) { c.Data = data })
	if err := hello(); !errors.Is(err, contract.ErrForbidden) || !strings.Contains(err.Error(), "rooms.lease") {
		t.Errorf("without a lease: %v", err)
	}
	q.Name = "spare2"
	if _, err := bustest.AddWorker(t.Context(), s.Conn("cli"), q, t.TempDir()); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("added without a lease: %v", err)
	}
}

func TestDamagedWorkerStopsTheStart(t *testing.T) {
	s := bustest.Start(t)
	s.Worker("hall1")
	s.Stop()
	path := filepath.Join(s.Config().Data, "bus/workers/hall1.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{"half": string(good[:len(good)/2]), "another's": strings.Replace(string(good), "hall1", "hall2", 1),
		"no key": strings.Replace(string(good), `"key": "U`, `"key": "A`, 1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if msg := refusal(t, s.Config().Data, "127.0.0.1:0"); !strings.Contains(msg, "hall1.json") || !strings.Contains(msg, "backup") {
			t.Errorf("%s: %s", name, msg)
		}
	}
}

func TestAWorkersHello(t *testing.T) {
	s := bustest.Start(t)
	c, err := bus.Connect(t.Context(), bus.Options{Creds: s.Worker("hall1"), Name: bus.WorkerUser("hall1"), Log: zap.NewNop()}) // its URL is in the file
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, k := range map[string]struct {
		as       string
		contract int
		want     *contract.Error
	}{"good": {"hall1", contract.Version, nil}, "newer": {"hall1", contract.Version + 1, contract.ErrVersion}, "another": {"hall2", contract.Version, contract.ErrForbidden}} {
		_, err := bus.Call(t.Context(), c, contract.BusWorkerHello, &contract.WorkerHello{Version: "9.9", Contract: k.contract}, k.as)
		if (err == nil) != (k.want == nil) || err != nil && !errors.Is(err, k.want) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, contract.ErrVersion) && !(strings.Contains(err.Error(), "9.9") && strings.Contains(err.Error(), "install")) {
			t.Error(err)
		}
	}
}

// elsewhere is an address of this machine whose connections are not from loopback.
func elsewhere(t *testing.T) string {
	t.Helper()
	for _, h := range certs.LocalHosts() {
		if ip := net.ParseIP(h); ip.To4() != nil && ip.IsGlobalUnicast() {
			return h
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

func TestBeyondLoopbackTheBusEncrypts(t *testing.T) {
	s := bustest.StartWith(t, func(c *config.Config) { c.Bus.Listen = "0.0.0.0:0" })
	_, port, err := net.SplitHostPort(s.Config().Bus.Listen)
	if err != nil {
		t.Fatal(err)
	}
	worker := s.Worker("hall1")
	a, err := natscreds.ReadAccess(worker)
	if err != nil {
		t.Fatal(err)
	}
	if !a.TLS || a.ServerName != "parley-bus" || a.CA == "" || a.Worker != "hall1" || len(a.URLs) != 1 || !strings.HasSuffix(a.URLs[0], port) {
		t.Fatalf("%+v", a)
	}
	nc, err := dial(t, s.URL(), worker)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := nc.TLSConnectionState(); err != nil || state.Version < tls.VersionTLS12 || state.PeerCertificates[0].VerifyHostname("parley-bus") != nil || state.PeerCertificates[0].VerifyHostname("127.0.0.1") != nil {
		t.Errorf("%+v, %v", state, err)
	}
	// In clear nobody is let in, nor by another's authority.
	if _, err := nats.Connect(s.URL(), nats.UserCredentials(worker), nats.Timeout(10*time.Second)); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("without an authority: %v", err)
	}
	other := bustest.StartWith(t, func(c *config.Config) { c.Bus.Listen = "0.0.0.0:0" })
	if _, err := dial(t, other.URL(), worker); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("another bus is taken for this one: %v", err)
	}
	raw, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Write([]byte("CONNECT {\"verbose\":true}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	var got strings.Builder
	for {
		n, err := raw.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("who speaks in clear is kept")
			}
			break
		}
	}
	if strings.Contains(got.String(), "+OK") || strings.Contains(got.String(), "PONG") {
		t.Errorf("who speaks in clear is answered: %s", got.String())
	}
	// The processes of the node know it too, and after a start anew.
	bots := s.Conn("cli")
	s.Restart()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if trust, err := bus.Call(ctx, bots, contract.BusTrust, &contract.None{}); err == nil {
			if trust.CA != a.CA {
				t.Error("the bus has another authority after a restart")
			}
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if _, err := dial(t, s.URL(), worker); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestTheNodesOwnCredentialsAreOfNoUseElsewhere(t *testing.T) {
	s := bustest.StartWith(t, func(c *config.Config) { c.Bus.Listen = "0.0.0.0:0" })
	at := elsewhere(t)
	_, port, err := net.SplitHostPort(s.Config().Bus.Listen)
	if err != nil {
		t.Fatal(err)
	}
	media := host.CredsFile(s.Config(), "media")
	if _, err := dial(t, s.URL(), media); err != nil {
		t.Fatal(err)
	}
	url := "nats://" + net.JoinHostPort(at, port)
	if _, err := dial(t, url, media); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("from %s: %v", at, err)
	}
	if _, err := dial(t, url, s.Worker("hall1")); err != nil {
		t.Errorf("a worker from %s: %v", at, err)
	}
	s.Stop()
	with := bustest.StartWith(t, func(c *config.Config) {
		c.Bus.Listen, c.Bus.Processes = "0.0.0.0:"+port, []string{at + "/32"}
	})
	if _, err := dial(t, url, host.CredsFile(with.Config(), "media")); err != nil {
		t.Errorf("from bus.processes: %v", err)
	}
}

// What a former version signed has no bounds: it is out as soon as there is something newer.
func TestFormerCredentialsAreOut(t *testing.T) {
	s := bustest.Start(t)
	path := host.CredsFile(s.Config(), "media")
	f, err := natscreds.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kp, err := jwt.ParseDecoratedUserNKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	former := *f.User
	former.Src = nil
	tok := s.SignNode(&former)
	signed := time.Now()
	enter := func() error {
		nc, err := nats.Connect(s.URL(), nats.UserJWT(func() (string, error) { return tok, nil }, kp.Sign), nats.Timeout(10*time.Second))
		if err == nil {
			nc.Close()
		}
		return err
	}
	if err := enter(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if err := os.Remove(path); err != nil { // as if this version gave something else
		t.Fatal(err)
	}
	time.Sleep(time.Until(signed.Truncate(time.Second).Add(2 * time.Second))) // signatures are dated in seconds
	s.Restart()
	if err := enter(); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("let in: %v", err)
	}
	s.Conn("media")
}
