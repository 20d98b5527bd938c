package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/gate"
	"github.com/parley-jami/parley/bus/remotekey"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/internal/turnclient"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device"
	"github.com/parley-jami/parley/services/connect/device/icetcp"
	"github.com/parley-jami/parley/services/connect/device/iceudp"
	"github.com/parley-jami/parley/services/connect/device/secure"
	"github.com/parley-jami/parley/services/connect/sip"
)

// An account that could not be made ready is tried again after the first of these,
// doubling to the second.
const (
	devicesFirst = 200 * time.Millisecond
	devicesMost  = 10 * time.Second
)

// devices has the node's accounts connected with devices of Jami accounts.
type devices struct {
	conn    *bus.Conn
	gates   *gate.Set
	log     *zap.Logger
	manager *device.Manager
	port    *icetcp.Listener
	udp     *iceudp.Port // nil: off
	treated *device.Treated
	changed chan struct{}      // holds an element when the accounts are to be looked at
	relays  *turnclient.Client // nil: no TURN server is to be used
}

// devicePorts are the sockets for devices.
type devicePorts struct {
	tcp net.Listener // nil: both are off
	udp *net.UDPConn // nil: off
}

// openDevices opens the ports for devices.
func (s *Service) openDevices() (p devicePorts, err error) {
	c := s.env.Config.Jami
	if c.Listen == "" || s.door() {
		return p, nil
	}
	if p.tcp, err = sockets.TCP(sockets.Devices, c.Listen); err != nil {
		return p, fmt.Errorf("%w (setting jami.listen)", err)
	}
	s.listens("jami", p.tcp.Addr())
	if c.UDP != "on" {
		return p, nil
	}
	if p.udp, err = sockets.UDP(sockets.DevicesUDP, c.Listen); err != nil {
		return p, errors.Join(fmt.Errorf("%w (settings jami.listen, jami.udp)", err), p.tcp.Close())
	}
	s.listens("jami/udp", p.udp.LocalAddr())
	return p, nil
}

// buildDevices makes what serves the ports. handlers take the channels that devices open;
// phones have the calls.
func (s *Service) buildDevices(ports devicePorts, dir string, conn *bus.Conn, gates *gate.Set, phones *sip.Server, handlers map[string]channel.Handler) (*devices, error) {
	var public []netip.Addr
	for _, p := range s.env.Config.Jami.Public {
		ip, err := netip.ParseAddr(p)
		if err != nil {
			return nil, fmt.Errorf("jami.public: %w", err)
		}
		public = append(public, ip.Unmap())
	}
	treated, err := device.OpenTreated(dir)
	if err != nil {
		return nil, err
	}
	d := &devices{conn: conn, gates: gates, log: s.env.Log.Named("device"), treated: treated, changed: make(chan struct{}, 1)}
	if s.relays != nil && s.env.Config.TURN.Node {
		d.relays = turnclient.New(turnclient.Config{List: s.relays, Name: "parley-connect", Log: s.env.Log.Named("relay"), Metrics: turnclient.NewMetrics(s.env.Registry)})
	}
	metrics := device.NewMetrics(s.env.Registry)
	d.port = icetcp.NewListener(ports.tcp, icetcp.Options{Public: public, Log: d.log})
	if ports.udp != nil {
		d.udp = iceudp.NewPort(ports.udp, iceudp.Options{Public: public, STUN: s.env.Config.Media.STUN, Log: d.log, Stray: metrics.Stray})
	}
	keep, kept, err := sockets.OpenKeep()
	if err != nil { // calls end with the process then, as they do without a supervisor
		d.log.Error("connections to devices are not kept", zap.Error(err))
	}
	d.manager = device.New(device.Config{Listener: d.port, UDP: d.udp, Overlay: sender{conn}, Treated: treated, Handlers: handlers, Log: d.log, Metrics: metrics,
		Keep: keep, Kept: kept, Lost: phones.Lost})
	phones.Expect(d.manager.Expected())
	return d, nil
}

// run serves until ctx ends.
func (d *devices) run(ctx context.Context) error {
	serving, stop := context.WithCancel(ctx)
	ports, serving := errgroup.WithContext(serving)
	ports.Go(func() error { return d.port.Serve(serving) })
	if d.udp != nil {
		ports.Go(func() error { return d.udp.Serve(serving) })
	}
	served := make(chan error, 1)
	go func() { served <- ports.Wait() }()
	var relaying sync.WaitGroup
	if d.relays != nil {
		relaying.Go(func() { d.relay(serving) })
	}
	defer func() {
		d.manager.Close()
		stop()
		<-served
		relaying.Wait()
		if err := d.treated.Close(); err != nil {
			d.log.Warn("requests of devices", zap.Error(err))
		}
	}()
	messages, err := bus.Subscribe(d.conn.For(bus.Any), contract.PeerMessages, func(_ context.Context, p []string, m *contract.PeerMessage) { d.heard(p[0], m) })
	if err != nil {
		return err
	}
	defer messages.Stop()
	changes, err := bus.Subscribe(d.conn, contract.IdentityReady, func(context.Context, []string, *contract.IdentityState) { d.look() })
	if err != nil {
		return err
	}
	defer changes.Stop()
	defer d.conn.OnReconnect(d.look)()
	had := map[jami.ID]contract.Account{}
	for wait := devicesFirst; ; {
		var again <-chan time.Time
		if err := d.update(ctx, had); err != nil && ctx.Err() == nil {
			d.log.Debug("not all accounts can be called yet; trying again", zap.Error(err), zap.Duration("in", wait))
			again, wait = time.After(wait), min(2*wait, devicesMost)
		} else {
			wait = devicesFirst
			d.manager.Settle()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-served:
			served <- err
			return err
		case <-d.changed:
		case <-again:
		}
	}
}

func (d *devices) look() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// update serves the accounts that identity has now. had are those that are served.
func (d *devices) update(ctx context.Context, had map[jami.ID]contract.Account) error {
	st, err := bus.Call(ctx, d.conn, contract.IdentityGet, &contract.None{})
	if err != nil {
		return err
	}
	var errs []error
	there := map[jami.ID]bool{}
	for _, a := range st.Accounts {
		id, err := jami.ParseID(a.ID)
		if err != nil || a.Ended {
			errs = append(errs, err)
			continue
		}
		there[id] = true
		if err := d.add(ctx, id, a); err != nil {
			errs = append(errs, fmt.Errorf("account %s: %w", a.ID, err))
			continue
		}
		had[id] = a
	}
	for id := range had {
		if !there[id] {
			d.manager.Remove(id)
			delete(had, id)
		}
	}
	return errors.Join(errs...)
}

// add serves an account as it is now: its certificates may be new ones.
func (d *devices) add(ctx context.Context, id jami.ID, a contract.Account) error {
	conn := d.conn.For(a.ID)
	judge, err := d.gates.Of(a.ID)
	if err != nil {
		return err
	}
	key, err := remotekey.Device(ctx, ctx, conn, "connect")
	if err != nil {
		return err
	}
	acc := device.Account{ID: id, Own: secure.Own{Chain: key.Chain, Key: key}, Judge: judge}
	if !a.Rendezvous {
		acc.Welcome = func(ctx context.Context, c *trust.Chain) error { return contactOf(ctx, conn, id, c) }
	}
	d.manager.Add(acc)
	return nil
}

var errStranger = errors.New("the account takes calls of its contacts alone, and this is none")

// contactOf refuses devices that are neither of a contact nor of the account itself.
func contactOf(ctx context.Context, conn *bus.Conn, own jami.ID, c *trust.Chain) error {
	if c.JamiID == own {
		return nil
	}
	page, err := bus.Call(ctx, conn, contract.ContactList, &contract.ContactQuery{After: before(c.JamiID), Limit: 1})
	if err != nil {
		return err
	}
	if len(page.Contacts) == 0 || page.Contacts[0].ID != c.JamiID.String() || !page.Contacts[0].Active {
		return errStranger
	}
	return nil
}

// before is the id in front of which there is none but smaller ones.
func before(id jami.ID) string {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]--
		if id[i] != 0xff {
			break
		}
	}
	return id.String()
}

// heard takes what a device sent. Identity found its chain good.
func (d *devices) heard(account string, m *contract.PeerMessage) {
	id, err := jami.ParseID(account)
	if err != nil {
		return
	}
	judge, err := d.gates.Of(account)
	if err != nil {
		d.log.Info("request of a device passed over", zap.Error(err))
		return
	}
	certs, err := trust.Certificates([]byte(m.Chain))
	var chain *trust.Chain
	if err == nil {
		chain, err = judge.Check(certs)
	}
	if err != nil {
		d.log.Info("request of a device refused", zap.Error(err))
		return
	}
	d.manager.Receive(id, chain, m.Message)
}

// sender is the overlay as package device sees it.
type sender struct{ conn *bus.Conn }

// Send implements device.Overlay.
func (s sender) Send(ctx context.Context, account jami.ID, peer *trust.Chain, message []byte) error {
	_, err := bus.Call(ctx, s.conn.For(account.String()), contract.PeerSend, &contract.PeerMessage{Chain: string(peer.PEM()), Message: message})
	return err
}

// find finds the devices of an account that one of the node's wants to connect to.
func (d *devices) find(ctx context.Context, account, of jami.ID) (chains []*trust.Chain, missing int, err error) {
	judge, err := d.gates.Of(account.String())
	if err != nil {
		return nil, 0, err
	}
	found, err := bus.Call(ctx, d.conn.For(account.String()), contract.PeerFind, &contract.PeerAccount{ID: of.String()})
	if err != nil {
		return nil, 0, err
	}
	for _, text := range found.Chains {
		certs, err := trust.Certificates([]byte(text))
		if err != nil {
			return nil, 0, err
		}
		c, err := judge.Check(certs)
		if err == nil && c.JamiID == of {
			chains = append(chains, c)
		}
	}
	return chains, found.Missing, nil
}

// findAgain are the times after which devices that were missing are looked for again.
var findAgain = []time.Duration{500 * time.Millisecond, 2 * time.Second, 5 * time.Second}

// dial opens a channel to each device of an account, all at once, and calls fn with each
// that opens or fails, from several goroutines. It returns when all did, or there is no device.
// While there are some, those whose certificates were missing are looked for again.
func (d *devices) dial(ctx context.Context, account, of jami.ID, name, hint string, fn func(to *trust.Chain, c channel.Channel, err error)) (missing int, err error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	dialled := map[jami.LongID]bool{}
	for i := 0; ; i++ {
		chains, missing, err := d.find(ctx, account, of)
		if err != nil {
			if i > 0 {
				d.log.Debug("devices not looked for again", zap.Stringer("jami_id", of), zap.Error(err))
				return 0, nil
			}
			return 0, err
		}
		for _, to := range chains {
			if dialled[to.DeviceID] {
				continue
			}
			dialled[to.DeviceID] = true
			wg.Go(func() {
				c, err := d.manager.Dial(ctx, account, to, name, hint)
				fn(to, c, err)
			})
		}
		if missing == 0 || len(dialled) == 0 || i == len(findAgain) {
			return missing, nil
		}
		select {
		case <-time.After(findAgain[i]):
		case <-ctx.Done():
			return missing, nil
		}
	}
}

// reachTime is less than an answer may take on the bus.
const reachTime = 25 * time.Second

// reach tries whether an account's devices can be called.
func (d *devices) reach(ctx context.Context, r *bus.Request[contract.PeerAccount]) (*contract.PeerReaches, error) {
	of, err := jami.ParseID(r.Body.ID)
	if err != nil || of.IsZero() {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	own, err := jami.ParseID(r.Param(0))
	if err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	began := time.Now()
	var mu sync.Mutex
	out := &contract.PeerReaches{Devices: []contract.PeerReached{}}
	out.Missing, err = d.dial(ctx, own, of, "sip", "", func(to *trust.Chain, c channel.Channel, err error) {
		x := contract.PeerReached{Device: to.DeviceID.String(), Connected: err == nil, TookMs: time.Since(began).Milliseconds()}
		if err != nil {
			x.Error = err.Error()
		} else {
			p := c.Peer()
			x.Address, x.Over, x.TLS, x.Suite = c.RemoteAddr().String(), p.Over, p.TLS, p.Suite
			if err := c.Close(); err != nil {
				d.log.Debug("channel", zap.Error(err))
			}
		}
		mu.Lock()
		defer mu.Unlock()
		out.Devices = append(out.Devices, x)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
