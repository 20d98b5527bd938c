package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// latchTicks is how often a listener sends a packet of silence, as phones do: the
// node learns the address by it and sees that the leg lives. 4 s.
const latchTicks = 200

// maxLateTicks is how far the generator may be behind before it leaves frames out.
const maxLateTicks = 5

// silentFrame is 20 ms of Opus silence (RFC 6716: CELT, fullband, mono).
var silentFrame = []byte{0xf8, 0xff, 0xfe}

// silence is the voice of who says nothing and sends all the time.
var silence = []voiceFrame{{silentFrame, 127}}

// present returns who sends and who only listens now.
func (g *generator) present() (senders, listeners []*leg) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.senders, g.listeners
}

// send speaks until ctx ends. The listeners' own packets are spread over time.
func (g *generator) send(ctx context.Context) error {
	const step = 20 * time.Millisecond
	buf := make([]byte, 0, 1500)
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for tick := 1; ; tick++ {
		senders, listeners := g.present()
		// A phone that was held up doesn't send what it missed in a burst.
		if late := int(time.Since(began)/step) - tick; late > maxLateTicks {
			tick += late
			if g.measuring.Load() {
				g.skipped.Add(int64(late))
			}
			for _, l := range senders {
				l.sending.Lock()
				l.ts += uint32(late) * frameSamples
				l.sending.Unlock()
			}
		}
		timer.Reset(time.Until(began.Add(time.Duration(tick) * step)))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		for _, l := range senders {
			if l.dtls && (tick+l.index)%latchTicks == 0 {
				if err := g.keep(l, buf); err != nil {
					return err
				}
			}
			frame := (tick + l.shift) % len(l.voice)
			if l.marked && g.measuring.Load() {
				g.note(frame)
			}
			if err := g.one(l, buf, l.voice[frame]); err != nil {
				return err
			}
		}
		planned := 0
		for _, l := range listeners {
			if l.next == 0 { // all within half a second at the start
				l.next = tick + planned/(1+len(listeners)/25)
				planned++
			}
			if l.next > tick {
				continue
			}
			if err := g.keep(l, buf); err != nil {
				return err
			}
			if l.next = tick + latchTicks; !l.begun { // they came at once, and go on apart
				l.begun, l.next = true, tick+1+rand.IntN(latchTicks)
			}
		}
	}
}

// keep shows the node that a listener is there: phones send silence, browsers a check and a report.
func (g *generator) keep(l *leg, buf []byte) error {
	w := l.way.Load()
	if !l.dtls {
		return g.one(l, buf, silence[0])
	}
	check, err := w.ice.check()
	if err != nil {
		return err
	}
	report, err := l.report(w, buf)
	if err != nil {
		return fmt.Errorf("protecting a report: %w", err)
	}
	for _, pkt := range [][]byte{check, report} {
		if err := g.put(pkt, l, w); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) one(l *leg, buf []byte, f voiceFrame) error {
	w := l.way.Load()
	pkt, err := l.packet(w, buf, f.payload, f.level)
	if err != nil {
		return fmt.Errorf("protecting a packet: %w", err)
	}
	return g.put(pkt, l, w)
}

// put sends a packet by whatever weather there is.
func (g *generator) put(pkt []byte, l *leg, w *way) error {
	if b := g.weather.Load(); b != nil {
		b.send(g, l, w, pkt)
		return nil
	}
	if err := g.sock.write(pkt, l.addr, w.to); err != nil {
		return fmt.Errorf("sending to %s: %w", w.to, err)
	}
	return nil
}

// note remembers the marks that begin in a frame which is sent now.
func (g *generator) note(frame int) {
	g.record.Lock()
	defer g.record.Unlock()
	for _, m := range marks {
		if m/frameSamples == frame {
			g.marks = append(g.marks, mark{time.Now().UnixNano() + int64(m%frameSamples)*1e9/rate})
		}
	}
}
