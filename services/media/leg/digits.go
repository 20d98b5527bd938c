package leg

import "encoding/binary"

// digitTimeout is when a key press without its end is reported anyhow: the three
// copies of the end (RFC 4733 §2.5.1.4) may all have been lost.
const digitTimeout = 1_000_000_000 // ns

const digitNames = "0123456789*#ABCD"

// digits follows telephone-events (RFC 4733 §2.3):
//
//	event (8) | E (1) R (1) volume (6) | duration (16)
//
// All packets of one press have the same RTP timestamp.
type digits struct {
	ts      uint32
	at      int64
	name    byte // 0: no press is open
	seen    bool // ts is that of a press
	clock   int
	samples uint16
}

// packet returns the digit and its length when a press is complete, once.
func (d *digits) packet(b []byte, ts uint32, clock int, now int64) (string, int) {
	if len(b) < 4 || int(b[0]) >= len(digitNames) {
		return "", 0
	}
	var digit string
	var ms int
	if !d.seen || ts != d.ts {
		digit, ms = d.finish() // the end of the press before was lost
		d.seen, d.ts, d.name, d.clock, d.samples = true, ts, digitNames[b[0]], clock, 0
	}
	d.at = now
	if d.name == 0 {
		return digit, ms
	}
	d.samples = max(d.samples, binary.BigEndian.Uint16(b[2:]))
	if b[1]&0x80 != 0 && digit == "" {
		return d.finish()
	}
	return digit, ms
}

// finish ends an open press.
func (d *digits) finish() (string, int) {
	if d.name == 0 {
		return "", 0
	}
	name := string(rune(d.name))
	d.name = 0
	if d.clock == 0 {
		return name, 0
	}
	return name, int(d.samples) * 1000 / d.clock
}

// overdue ends a press whose end never came.
func (d *digits) overdue(now int64) (string, int) {
	if d.name != 0 && now-d.at > digitTimeout {
		return d.finish()
	}
	return "", 0
}
