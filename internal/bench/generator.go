package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"
)

// received is what a leg got while measuring.
type received struct {
	have    bool
	firstTS uint32
	lags    []int32  // arrival minus RTP time, relative to the first, in µs
	ts      []uint32 // RTP time of each; only where cfg.frames
	packets []packet
	keep    bool  // packets too
	base    int64 // arrival of the first, unix ns
}

type packet struct {
	at  int64 // unix ns
	ts  uint32
	raw []byte
}

// mark is a chirp on its way.
type mark struct{ at int64 } // when its first sample was sent, unix ns

type generator struct {
	cfg       Config
	sock      *socket
	port      int
	net       [2]byte               // where the legs are
	slots     []atomic.Pointer[leg] // by address
	legs      []*leg                // of a run in which all stay: speakers first
	marks     []mark
	measuring atomic.Bool
	stopped   atomic.Bool
	weather   atomic.Pointer[weather] // nil: fair
	record    sync.Mutex              // guards marks and what legs got, while measuring goes on and off
	skipped   atomic.Int64            // steps of 20 ms in which nothing was sent, as the generator was held up
	dropped   atomic.Uint32           // packets that came and found the socket's buffer full
	moved     moves

	mu        sync.Mutex // guards the lists; they are replaced, never changed
	senders   []*leg
	listeners []*leg
}

// open makes a generator without legs, with that many places for them.
func open(places int) (*generator, error) {
	s, err := newSocket()
	if err != nil {
		return nil, err
	}
	return &generator{sock: s, port: s.port(), net: loopback, slots: make([]atomic.Pointer[leg], places)}, nil
}

func newGenerator(cfg Config) (*generator, error) {
	places := cfg.Speakers + cfg.Silent + cfg.Listeners
	if cfg.spread > 1 {
		places = cfg.spread * groupPlaces
	}
	g, err := open(places)
	if err != nil {
		return nil, err
	}
	g.cfg, g.net = cfg, cfg.net
	if err := g.fill(); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// maxVoices is how many voices are made: encoding them takes time.
const maxVoices = 8

// fill makes the legs.
func (g *generator) fill() error {
	cfg := g.cfg
	senders := cfg.Speakers + cfg.Silent
	var voices [][]voiceFrame
	run := nuid.Next()[14:] // two runs at once don't meet
	for i := range senders + cfg.Listeners {
		at := place(i, cfg.spread)
		l, err := newLeg(i, address(g.net, at), fmt.Sprintf("bench-%s-%d", run, i), i < senders, transports[cfg.Transport])
		if err != nil {
			return err
		}
		switch {
		case i < cfg.Speakers:
			if len(voices) < maxVoices {
				v, err := voice(i, cfg.Speakers)
				if err != nil {
					return err
				}
				voices = append(voices, v)
			}
			// Beyond, voices come again, each at a time of its own.
			l.voice = voices[i%maxVoices]
			l.shift = i / maxVoices * 37
			l.marked = i == 0
			g.senders = append(g.senders, l)
		case i < senders:
			l.plain, l.voice = true, silence
			g.senders = append(g.senders, l)
		default:
			g.listeners = append(g.listeners, l)
		}
		if !l.speaks || cfg.Listeners == 0 {
			l.got = g.room()
		}
		g.slots[at].Store(l)
		g.legs = append(g.legs, l)
	}
	return nil
}

// room is where a leg notes what it gets while measuring.
func (g *generator) room() received {
	frames := 50 * (g.cfg.Seconds + 2)
	r := received{lags: make([]int32, 0, frames)}
	if g.cfg.frames {
		r.ts = make([]uint32, 0, frames)
	}
	return r
}

// place is where leg i is among the addresses, when legs by turns are of so many groups: each has a
// quarter of the third byte, a /18.
func place(i, groups int) int {
	if groups < 2 {
		return i
	}
	return i%groups*groupPlaces + i/groups
}

// groupPlaces is how many addresses a group has, maxGroups how many groups there are.
const (
	groupPlaces = 64 * 250
	maxGroups   = 4
)

// sample chooses the listeners that are decoded afterwards: spread over all, so that the last in
// the order of sending counts too; of each address that serves legs, where that is asked for.
func (g *generator) sample() {
	groups := [][]*leg{g.listeners}
	if g.cfg.apart {
		groups = nil
		for _, s := range g.apart() {
			var listen []*leg
			for _, l := range s.legs {
				if !l.speaks {
					listen = append(listen, l)
				}
			}
			groups = append(groups, listen)
		}
	}
	for _, list := range groups {
		n := min(sampled, len(list))
		for k, l := range list {
			l.got.keep = k*n/len(list) != (k+1)*n/len(list)
		}
	}
}

// stop ends receive.
func (g *generator) stop() {
	g.stopped.Store(true)
	_ = g.sock.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed socket, which ends it too
}

func (g *generator) close() { g.sock.conn.Close() }

// receive notes what comes until stop.
func (g *generator) receive() error {
	for {
		err := g.sock.read(g.take)
		g.dropped.Store(g.sock.dropped)
		if g.stopped.Load() || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
	}
}

// take notes one packet.
func (g *generator) take(from netip.AddrPort, to [4]byte, at int64, pkt []byte) {
	i := indexOf(to)
	if i < 0 || i >= len(g.slots) || len(pkt) == 0 {
		return
	}
	l := g.slots[i].Load()
	if l == nil {
		return // not of this run
	}
	if b := g.weather.Load(); b != nil {
		var lost bool
		if at, lost = b.came(l, at); lost {
			return
		}
	}
	if pkt[0]>>6 != 2 {
		if ice := l.checks(from); ice != nil {
			ice.take(pkt)
		}
		return
	}
	if len(pkt) < 12 || pkt[1]&0x7f != payloadType {
		return // RTCP
	}
	l.gaps.note(at)
	ssrc := binary.BigEndian.Uint32(pkt[8:])
	l.mixers.note(from, ssrc, at)
	if !g.measuring.Load() {
		return
	}
	g.record.Lock()
	defer g.record.Unlock()
	ts := binary.BigEndian.Uint32(pkt[4:])
	if l.run.on {
		l.run.note(at, ts, ssrc)
		return
	}
	r := &l.got
	if cap(r.lags) == 0 {
		return // who speaks, and is not asked
	}
	if !r.have {
		r.have, r.firstTS, r.base = true, ts, at
	}
	lag := at - r.base - int64(int32(ts-r.firstTS))*1e6/(rate/1000)
	if len(r.lags) < cap(r.lags) {
		r.lags = append(r.lags, int32(lag/1000))
		if len(r.ts) < cap(r.ts) {
			r.ts = append(r.ts, ts)
		}
	}
	if r.keep {
		r.packets = append(r.packets, packet{at, ts, append([]byte(nil), pkt...)})
	}
}
