package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"
)

// received is what a leg got while measuring.
type received struct {
	have    bool
	firstTS uint32
	lags    []int32 // arrival minus RTP time, relative to the first, in µs
	packets []packet
	keep    bool // packets too
	// RTP times seen, by frame number, so that duplicates count once.
	base int64 // arrival of the first, unix ns
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
	legs      []*leg // speakers first
	voices    [][]voiceFrame
	marks     []mark
	measuring atomic.Bool
	stopped   atomic.Bool
}

func newGenerator(cfg Config) (*generator, error) {
	s, err := newSocket()
	if err != nil {
		return nil, err
	}
	g := &generator{cfg: cfg, sock: s, port: s.port()}
	run := nuid.Next()[14:] // two runs at once don't meet
	senders := cfg.Speakers + cfg.Silent
	for i := range senders + cfg.Listeners {
		l, err := newLeg(i, fmt.Sprintf("bench-%s-%d", run, i), i < senders, cfg.Transport == SRTP)
		if err != nil {
			s.conn.Close()
			return nil, err
		}
		if !l.speaks {
			l.got.lags = make([]int32, 0, 50*(cfg.Seconds+2))
			// Spread over all, so that the last in the order of sending counts too.
			n := min(sampled, cfg.Listeners)
			k := i - senders
			l.got.keep = k*n/cfg.Listeners != (k+1)*n/cfg.Listeners
		}
		l.plain = l.speaks && i >= cfg.Speakers
		g.legs = append(g.legs, l)
	}
	for k := range cfg.Speakers {
		v, err := voice(k, cfg.Speakers)
		if err != nil {
			s.conn.Close()
			return nil, err
		}
		g.voices = append(g.voices, v)
	}
	return g, nil
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
		if g.stopped.Load() || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
	}
}

// take notes one packet.
func (g *generator) take(to [4]byte, at int64, pkt []byte) {
	i := indexOf(to)
	if i < 0 || i >= len(g.legs) || len(pkt) < 12 || pkt[0]>>6 != 2 || pkt[1]&0x7f != payloadType {
		return // RTCP, or not of this run
	}
	l := g.legs[i]
	l.gaps.note(at)
	if l.speaks || !g.measuring.Load() {
		return
	}
	ts := binary.BigEndian.Uint32(pkt[4:])
	r := &l.got
	if !r.have {
		r.have, r.firstTS, r.base = true, ts, at
	}
	lag := at - r.base - int64(int32(ts-r.firstTS))*1e6/(rate/1000)
	if len(r.lags) < cap(r.lags) {
		r.lags = append(r.lags, int32(lag/1000))
	}
	if r.keep {
		r.packets = append(r.packets, packet{at, ts, append([]byte(nil), pkt...)})
	}
}

// latchEvery is how often a listener sends a packet of silence, as phones do: the
// node learns the address by it and sees that the leg lives.
const latchEvery = 4 * time.Second

// maxLateTicks is how far the generator may be behind before it leaves frames out.
const maxLateTicks = 5

// silentFrame is 20 ms of Opus silence (RFC 6716: CELT, fullband, mono).
var silentFrame = []byte{0xf8, 0xff, 0xfe}

// send speaks until ctx ends. The listeners' own packets are spread over time.
func (g *generator) send(ctx context.Context) error {
	const step = 20 * time.Millisecond
	buf := make([]byte, 0, 1500)
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	latched := 0
	perTick := 1 + len(g.legs)/25 // all within half a second at the start
	slow := false
	var credit float64
	for tick := 0; ; tick++ {
		// A phone that was held up doesn't send what it missed in a burst.
		if late := int(time.Since(began)/step) - tick; late > maxLateTicks {
			tick += late
			for _, l := range g.legs[:g.cfg.Speakers+g.cfg.Silent] {
				l.ts += uint32(late) * frameSamples
			}
		}
		timer.Reset(time.Until(began.Add(time.Duration(tick) * step)))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		for _, l := range g.legs[g.cfg.Speakers : g.cfg.Speakers+g.cfg.Silent] {
			if err := g.one(l, buf, voiceFrame{silentFrame, 127}); err != nil {
				return err
			}
		}
		for k := range g.cfg.Speakers {
			frame := tick % loopFrames
			f := g.voices[k][frame]
			if k == 0 && g.measuring.Load() {
				g.note(frame)
			}
			if err := g.one(g.legs[k], buf, f); err != nil {
				return err
			}
		}
		n := perTick
		if slow {
			credit += float64(len(g.legs)) * float64(step) / float64(latchEvery)
			n = int(credit)
			credit -= float64(n)
		}
		for range n {
			l := g.legs[latched]
			if !l.speaks {
				if err := g.one(l, buf, voiceFrame{silentFrame, 127}); err != nil {
					return err
				}
			}
			if latched++; latched == len(g.legs) {
				latched, slow = 0, true
			}
		}
	}
}

func (g *generator) one(l *leg, buf []byte, f voiceFrame) error {
	pkt, err := l.packet(buf, f.payload, f.level)
	if err != nil {
		return fmt.Errorf("protecting a packet: %w", err)
	}
	if err := g.sock.write(pkt, l.addr, l.to); err != nil {
		return fmt.Errorf("sending to %s: %w", l.to, err)
	}
	return nil
}

// note remembers the marks that begin in a frame which is sent now.
func (g *generator) note(frame int) {
	for _, m := range marks {
		if m/frameSamples == frame {
			g.marks = append(g.marks, mark{time.Now().UnixNano() + int64(m%frameSamples)*1e9/rate})
		}
	}
}
