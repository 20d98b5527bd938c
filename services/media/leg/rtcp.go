package leg

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/pion/rtcp"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

// rtcpInterval is the pause between reports, ±20 % so that those of a large room
// spread (RFC 3550 §6.2).
const rtcpInterval = 5 * time.Second

// ntp returns the time in 32.32 fixed point since 1900 (RFC 3550 §4).
func ntp(t time.Time) uint64 {
	const since1900 = 2_208_988_800
	s := uint64(t.Unix() + since1900)
	return s<<32 | uint64(t.Nanosecond())<<32/1_000_000_000
}

// rtcpIn takes a compound packet from an address of this leg; false when it was
// not authentic.
func (l *Leg) rtcpIn(pkt []byte, now int64) bool {
	in := &l.in
	if in.opened(pkt, &pkt, l) != nil {
		return false
	}
	ps, err := rtcp.Unmarshal(pkt)
	if err != nil {
		l.h.drop(dropMalformed)
		return in.isSecure()
	}
	l.h.stats.rtcpIn.Add(1)
	bye := false
	for _, p := range ps {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			l.report.lsr.Store(uint32(p.NTPTime >> 16))
			l.report.lsrAt.Store(now)
			l.blocks(p.Reports)
		case *rtcp.ReceiverReport:
			l.blocks(p.Reports)
		case *rtcp.Goodbye:
			bye = true
		}
	}
	l.touch(now)
	if bye {
		l.bye.Store(now)
	}
	return true
}

func (in *inbound) isSecure() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.secure
}

// opened opens a protected compound packet in place.
func (in *inbound) opened(pkt []byte, plain *[]byte, l *Leg) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.secure || in.clear {
		return nil
	}
	if in.srtp == nil {
		l.h.drop(dropEarly)
		return srtp.ErrAuth
	}
	b, err := in.srtp.RTCP(pkt)
	if err != nil {
		l.h.drop(dropAuth)
		return err
	}
	*plain = b
	return nil
}

// blocks reads what the far end says of our stream (RFC 3550 §6.4.1).
func (l *Leg) blocks(rs []rtcp.ReceptionReport) {
	for _, r := range rs {
		if r.SSRC != l.ssrc {
			continue
		}
		l.report.farLost.Store(math.Float64bits(float64(r.FractionLost) * 100 / 256))
		if r.LastSenderReport != 0 {
			now := uint32(ntp(time.Now()) >> 16)
			if d := int32(now - r.LastSenderReport - r.Delay); d > 0 && d < 30<<16 {
				l.report.rtt.Store(math.Float64bits(float64(d) * 1000 / 65536))
			}
		}
	}
}

// sendRTCP queues a report on w: SR when something was sent, else RR, with SDES,
// and BYE when the leg ends (RFC 3550 §6.1). w belongs to the caller.
func (l *Leg) sendRTCP(writer func(*port) *wire.Writer, now time.Time, bye bool) {
	l.mu.Lock()
	port, second := l.outLocked()
	to := l.st.Remote
	switch {
	case l.st.Jami:
		port, to = second, l.st.RemoteRTCP
	case !l.st.WebRTC && !l.st.Mux:
		port, to = second, l.st.ToldRTCP
		if l.st.Remote != l.st.Told { // behind NAT: the usual neighbour of where RTP comes from
			to = nextPort(l.st.Remote)
		}
	}
	ok := l.st.Negotiated && l.maySendLocked()
	l.mu.Unlock()
	sa, reachable := port.sock.Sockaddr(to)
	if !ok || !reachable {
		return
	}
	var block []rtcp.ReceptionReport
	l.in.mu.Lock()
	if rx := &l.in.rx; rx.started {
		rr := rtcp.ReceptionReport{
			SSRC: rx.ssrc, FractionLost: rx.interval(), TotalLost: uint32(min(rx.lost(), 1<<23-1)),
			LastSequenceNumber: rx.highest, Jitter: uint32(rx.jitter),
		}
		if lsr := l.report.lsr.Load(); lsr != 0 {
			rr.LastSenderReport = lsr
			rr.Delay = uint32((mix.Now() - l.report.lsrAt.Load()) / 1000 * 65536 / 1_000_000)
		}
		block = append(block, rr)
	}
	l.in.mu.Unlock()

	o := &l.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.secure && o.srtp == nil {
		return
	}
	var first rtcp.Packet = &rtcp.ReceiverReport{SSRC: l.ssrc, Reports: block}
	if o.packets > 0 {
		passed := now.UnixMicro() - o.lastAt
		first = &rtcp.SenderReport{
			SSRC: l.ssrc, NTPTime: ntp(now), RTPTime: o.ts + uint32(passed*int64(o.clock)/1_000_000),
			PacketCount: uint32(o.packets), OctetCount: uint32(o.octets), Reports: block,
		}
	}
	ps := []rtcp.Packet{first, rtcp.NewCNAMESourceDescription(l.ssrc, l.cname)}
	if bye {
		ps = append(ps, &rtcp.Goodbye{Sources: []uint32{l.ssrc}})
	}
	raw, err := rtcp.Marshal(ps)
	if err != nil || len(raw) > wire.SlotSize-srtp.Overhead {
		l.h.logError("RTCP not written", l.id, err)
		return
	}
	w := writer(port)
	b := w.Slot()
	n := copy(b, raw)
	if o.secure && !o.clear {
		o.rtcp++
		l.slot.RTCP.Store(uint64(o.rtcp))
		n = o.srtp.RTCP(b, n, o.rtcp)
	}
	w.Queue(n, &sa)
	l.h.stats.rtcpOut.Add(1)
}

// due reports whether a report is to be sent now and sets when the next is.
func (l *Leg) due(now int64) bool {
	if now < l.nextRTCP {
		return false
	}
	first := l.nextRTCP == 0
	l.nextRTCP = now + int64(float64(rtcpInterval)*(0.8+0.4*rand.Float64()))
	if first { // not before the stream has begun
		l.nextRTCP = now + int64(rtcpInterval/5)
	}
	return !first
}
