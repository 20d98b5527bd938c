package connect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/services/connect/confinfo"
	"github.com/parley-jami/parley/services/connect/sip"
)

// reconcilePause is between two tries to reach conference; it doubles up to reconcileMost.
const (
	reconcilePause = 500 * time.Millisecond
	reconcileMost  = 30 * time.Second
)

// openPhones opens the SIP sockets; an empty address is off. What arrives
// before [sip.Server.Run] waits in them.
func (s *Service) openPhones(dir string, tlsConf *tls.Config) (sip.Config, error) {
	c := s.env.Config.SIP
	cfg := sip.Config{Host: c.Host, SHA256: c.Digest == "both", Dir: filepath.Join(dir, "sip"), Version: s.env.Version, TLSConf: tlsConf,
		Code: errorCode, Log: s.env.Log.Named("sip")}
	if c.Listen != "" {
		udp, err := sockets.UDP(sockets.SIPUDP, c.Listen)
		if err != nil {
			return cfg, fmt.Errorf("%w (setting sip.listen)", err)
		}
		cfg.UDP = udp
		s.listens("sip/udp", udp.LocalAddr())
		tcp, err := sockets.TCP(sockets.SIPTCP, c.Listen)
		if err != nil {
			return cfg, fmt.Errorf("%w (setting sip.listen)", err)
		}
		cfg.TCP = tcp
		s.listens("sip/tcp", tcp.Addr())
	}
	if c.TLSListen != "" {
		l, err := sockets.TCP(sockets.SIPTLS, c.TLSListen)
		if err != nil {
			return cfg, fmt.Errorf("%w (setting sip.tls_listen)", err)
		}
		cfg.TLS = l
		s.listens("sip/tls", l.Addr())
	}
	return cfg, nil
}

// buildPhones builds the SIP server on a bus that knows the account.
func (s *Service) buildPhones(cfg sip.Config, conn *bus.Conn, peers sip.Peers, barred *barred, calls *jamiRooms) (*sip.Server, error) {
	cfg.Peers = peers
	cfg.Rooms = phones{bus: conn, signalling: s.name(), barred: barred}
	cfg.Callers = calls
	cfg.Farewell = sip.Message{Type: confinfo.InfoType, Body: confinfo.Over}
	srv, err := sip.New(cfg)
	if err != nil {
		return nil, err
	}
	calls.say = srv.Say
	for _, m := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_sip_calls", Help: "SIP calls in rooms."}, func() float64 { return float64(srv.Calls()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_sip_flood_total", Help: "SIP datagrams dropped because there were too many."}, func() float64 { return float64(srv.Flood()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_sip_junk_total", Help: "Datagrams on the SIP port that are not SIP."}, func() float64 { return float64(srv.Junk()) }),
	} {
		if err := s.env.Registry.Register(m); err != nil {
			return nil, fmt.Errorf("sip metrics: %w", err)
		}
	}
	return srv, nil
}

// reconcile brings phones and seats together in the background, each time the
// bus is there again; it asks until conference answers.
func (s *Service) reconcile(ctx context.Context, conn *bus.Conn, srv *sip.Server) {
	for pause := reconcilePause; ; pause = min(2*pause, reconcileMost) {
		err := reconcilePhones(ctx, phones{bus: conn, signalling: s.name()}, srv)
		if err == nil || ctx.Err() != nil {
			return
		}
		if e, ok := errors.AsType[*contract.Error](err); !ok || !e.Retry {
			s.env.Log.Warn("phones and rooms could not be compared", zap.Error(err))
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// phones lets the SIP server enter rooms over the bus.
type phones struct {
	bus        *bus.Conn
	signalling string // this connect process, as participants show it
	barred     *barred
}

func (p phones) face(ctx context.Context, room string) (*contract.RoomFace, error) {
	return bus.Call(ctx, p.bus, contract.RoomFaceCmd, &contract.RoomRef{Room: room})
}

func (p phones) Face(ctx context.Context, room string) (sip.Face, error) {
	f, err := p.face(ctx, room)
	switch {
	case errors.Is(err, contract.ErrNotFound), errors.Is(err, contract.ErrBadRequest):
		return sip.Face{}, nil
	case err != nil:
		return sip.Face{}, err
	}
	return sip.Face{Exists: true, Auth: f.PIN || f.SIPAuth}, nil
}

func (p phones) Secrets(ctx context.Context, room, realm string) (string, string, error) {
	s, err := bus.Call(ctx, p.bus, contract.RoomSIPSecret, &contract.SIPSecret{Realm: realm}, room)
	if err != nil {
		return "", "", err
	}
	return s.HA1, s.HA1SHA256, nil
}

func (p phones) Enter(ctx context.Context, c sip.Call) (_ string, err error) {
	if c.JamiID != "" {
		stop, werr := p.bar(ctx, c)
		if werr != nil {
			return "", werr
		}
		defer func() {
			if err != nil {
				stop()
			} else {
				p.barred.note(c.Room, c.ID, stop)
			}
		}()
	}
	kind, transport := contract.KindSIP, contract.TransportRTP
	if c.Device != "" || c.Jami {
		kind, transport = contract.KindJami, contract.TransportJami
	}
	j, err := bus.Call(ctx, p.bus, contract.RoomJoin, &contract.Join{
		Name: c.Name, Kind: kind, JamiID: c.JamiID, JamiDevice: c.Device, Verified: c.Verified, Source: c.Source, Unproved: c.Unproved,
		Transport: transport, Offer: c.Offer, Signalling: p.signalling, By: c.By,
		Signalled: signalled(c.Signalled),
	}, c.Room, c.ID)
	if err != nil {
		return "", err
	}
	return j.SDP, nil
}

// Again implements [sip.Rooms]: who is banned later is put out, as after Enter.
func (p phones) Again(ctx context.Context, c sip.Call) error {
	stop, err := p.bar(ctx, c)
	if err == nil {
		p.barred.note(c.Room, c.ID, stop)
	}
	return err
}

func signalled(s sip.Signalled) *contract.Signalled {
	if s == (sip.Signalled{}) {
		return nil
	}
	return &contract.Signalled{Over: s.Over, Local: s.Local, Remote: s.Remote, TLS: s.TLS, Suite: s.Suite}
}

func (p phones) Negotiate(ctx context.Context, c sip.Change) (string, error) {
	n, err := bus.Call(ctx, p.bus, contract.RoomNegotiate, &contract.Negotiate{SDP: c.SDP, Answer: c.Answer, Was: c.Was, Source: c.Source, Device: c.Device, Signalled: signalled(c.Signalled)}, c.Room, c.ID)
	if err != nil {
		return "", err
	}
	return n.SDP, nil
}

func (p phones) Confirm(ctx context.Context, room, id string) error {
	_, err := bus.Call(ctx, p.bus, contract.RoomConfirm, &contract.None{}, room, id)
	return err
}

func (p phones) Leave(ctx context.Context, room, id, reason string) error {
	_, err := bus.Call(ctx, p.bus, contract.RoomLeave, &contract.Leave{Reason: reason}, room, id)
	return err
}

// in reports whether a phone has its seat. An error is no answer.
func (p phones) in(ctx context.Context, room, id string) (bool, error) {
	j, err := bus.Call(ctx, p.bus, contract.RoomGet, &contract.None{}, room, id)
	switch {
	case errors.Is(err, contract.ErrNotFound):
		return false, nil // no such room
	case err != nil:
		return false, err
	}
	return j.Participant.ID == id, nil
}

// isOurs reports whether a participant is a phone or a Jami peer of this process.
func isOurs(p *contract.Participant, signalling string) bool {
	return p != nil && (p.Kind == contract.KindSIP || p.Kind == contract.KindJami) && p.Signalling == signalling
}

// phoneEvent lets what happens in a room reach the phones in it. It does not wait.
func phoneEvent(s *sip.Server, signalling string, e *contract.RoomEvent) {
	switch e.Type {
	case contract.EventJoined:
		if p := e.Participant; isOurs(p, signalling) && !s.Has(p.ID) {
			s.Forget(e.Room, p.ID) // the caller gave up while the room was asked
		}
	case contract.EventLeft:
		if e.Participant != nil {
			s.Hang(e.Participant.ID, e.Reason)
		}
	case contract.EventMedia:
		if e.Participant != nil {
			s.Renegotiate(e.Participant.ID)
		}
	case contract.EventClosed:
		for _, id := range s.IDs() {
			if room, ok := s.Room(id); ok && room == e.Room {
				s.Hang(id, e.Reason)
			}
		}
	}
}

// errorCode returns the stable code of an error from the bus.
func errorCode(err error) string {
	if e, ok := errors.AsType[*contract.Error](err); ok {
		return e.Code
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return contract.ErrTimeout.Code
	}
	return contract.ErrInternal.Code
}

// reconcilePhones hangs up on phones whose seat is gone, and takes from the
// room those whose call is gone: both happen when this process or conference
// was away while the other acted. The list of rooms may be short, and older than
// a call: it clears phones of doubt, and the room's own word decides the others.
func reconcilePhones(ctx context.Context, p phones, s *sip.Server) error {
	rooms, err := bus.Rooms(ctx, p.bus)
	if err != nil {
		return err
	}
	var failed error // rather one that is worth another try
	note := func(err error) {
		if e, ok := errors.AsType[*contract.Error](err); failed == nil || ok && e.Retry {
			failed = err
		}
	}
	seats := map[string]bool{}
	for _, r := range rooms {
		for i := range r.Participants {
			part := &r.Participants[i]
			if !isOurs(part, p.signalling) {
				continue
			}
			seats[part.ID] = true
			if s.Has(part.ID) {
				continue // also one that is being set up
			}
			err := p.Leave(ctx, r.Name, part.ID, contract.ReasonLost)
			if err != nil && !errors.Is(err, contract.ErrNotFound) && !errors.Is(err, contract.ErrGone) {
				note(err)
			}
		}
	}
	for _, id := range s.IDs() {
		room, ok := s.Room(id)
		if !ok || seats[id] {
			continue
		}
		switch in, err := p.in(ctx, room, id); {
		case err != nil:
			note(err)
		case !in:
			s.Hang(id, contract.ReasonLost)
		}
	}
	return failed
}
