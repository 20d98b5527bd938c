package leg

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// save writes what the next process needs. Without a place to write to, legs end
// with the process; sound goes on.
func (l *Leg) save() {
	if l.h.cfg.Files == nil {
		return
	}
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	st, closed := l.st, l.closed
	l.mu.Unlock()
	if closed {
		return
	}
	if st.Relayed || st.RelayedRTCP { // what the next process could not send to is no leg of its
		if err := l.h.cfg.Files.Delete(st.Tag); err != nil {
			l.h.logError("leg state not removed", l.id, err)
		}
		return
	}
	if err := l.h.cfg.Files.Save(st.Tag, &st); err != nil {
		l.h.logError("leg state not written; the leg would not outlive this process", l.id, err)
	}
}

// forgetState removes the file and frees the counters, after the last save.
func (l *Leg) forgetState(tag uint64, slot int) {
	l.saving.Lock()
	defer l.saving.Unlock()
	if l.h.cfg.Files != nil {
		if err := l.h.cfg.Files.Delete(tag); err != nil {
			l.h.logError("leg state not removed", l.id, err)
		}
	}
	l.h.cfg.Table.Free(slot)
}

var errSlot = errors.New("its counters belong to another leg")

// resume brings the legs of the process before back.
func (h *Host) resume() error {
	if h.cfg.Files == nil {
		return nil
	}
	begun := time.Now()
	err := h.cfg.Files.Load(h.revive, func(path string, err error) {
		h.log.Warn("leg state set aside; the others go on", zap.String("file", path), zap.Error(err))
	})
	if n := h.stats.resumed.Load(); n > 0 {
		h.log.Info("legs go on from the process before", zap.Uint64("legs", n), zap.Duration("took", time.Since(begun)))
	}
	return err
}

// revive makes a leg from its file.
func (h *Host) revive(raw []byte) error {
	var st State
	if err := json.Unmarshal(raw, &st); err != nil {
		return err
	}
	if st.ID == "" || st.Room == "" || st.Tag == 0 || (!st.WebRTC && (st.Pair < 0 || st.Pair >= Pairs)) {
		return fmt.Errorf("leg %q is incomplete", st.ID)
	}
	for _, k := range []bool{st.In != nil && !st.In.Valid(), st.Out != nil && !st.Out.Valid(), st.Session == 0} {
		if k {
			return fmt.Errorf("leg %q has no valid keys", st.ID)
		}
	}
	if _, again := h.Leg(st.ID); again {
		return fmt.Errorf("leg %q is there twice", st.ID)
	}
	slot, ok := h.cfg.Table.Claim(st.Slot, st.Tag)
	if !ok {
		return errSlot
	}
	l := &Leg{h: h, id: st.ID, ssrc: st.SSRC, cname: st.CName, slot: slot, st: st}
	l.st.Connected = false // so that who listens is told again
	o := &l.out
	o.index, o.ts, o.lastAt = slot.Sent.Load(), uint32(slot.Timestamp.Load()), int64(slot.SentAt.Load())
	o.resumed, o.rtcp = true, uint32(slot.RTCP.Load())+resumeSkip
	if err := h.admit(l); err != nil {
		return err
	}
	if err := l.reattach(); err != nil {
		h.close(l, false, "")
		h.cfg.Table.Free(st.Slot)
		return err
	}
	h.stats.resumed.Add(1)
	return nil
}

// reattach registers a revived leg at its ports and in the mix.
func (l *Leg) reattach() error {
	st := &l.st
	if !st.WebRTC {
		l.port, l.rtcp = l.h.rtpPort(st.Pair), l.h.rtcpPort(st.Pair)
	}
	if !st.WebRTC && !st.Jami {
		if !l.port.take(l, l.rtcp) {
			return ErrBusy
		}
		if st.Latched && st.Remote != st.Told {
			l.port.latched(l, st.Remote)
		}
	}
	l.dtls.done = st.WebRTC && st.In != nil
	l.mu.Lock()
	for _, a := range st.Valid {
		l.port.claim(a, l)
	}
	for _, a := range st.ValidRTCP {
		l.rtcp.claim(a, l)
	}
	err := l.configureLocked()
	if l.in.srtp != nil && l.slot.Source.Load() != 0 {
		l.in.srtp.Resume(uint32(l.slot.Source.Load()), l.slot.Received.Load())
	}
	l.mu.Unlock()
	if err != nil || (st.WebRTC && st.In == nil) {
		return err
	}
	return l.join()
}

func (p *port) claim(a netip.AddrPort, l *Leg) {
	p.mu.Lock()
	p.byAddr[a] = l
	p.mu.Unlock()
}
