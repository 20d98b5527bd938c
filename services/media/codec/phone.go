package codec

import (
	"github.com/gotranspile/g722"
	"github.com/zaf/g711"
)

// law is a G.711 companding law.
type law struct {
	decode [256]float32
	encode [1 << 13]byte // by the sample rounded to its upper 13 bits; the law has no finer step
}

var ulaw, alaw = newLaw(g711.DecodeUlawFrame, g711.EncodeUlawFrame), newLaw(g711.DecodeAlawFrame, g711.EncodeAlawFrame)

func newLaw(dec func(uint8) int16, enc func(int16) uint8) *law {
	l := new(law)
	for i := range l.decode {
		l.decode[i] = float32(dec(uint8(i))) / 32768
	}
	for i := range l.encode {
		l.encode[i] = enc(int16(i<<3 - 32768))
	}
	return l
}

func lawOf(id ID) *law {
	if id == PCMA {
		return alaw
	}
	return ulaw
}

// toInt16 rounds and clips.
func toInt16(v float32) int16 {
	s := v * 32768
	switch {
	case s >= 32767:
		return 32767
	case s <= -32768:
		return -32768
	case s < 0:
		return int16(s - 0.5)
	}
	return int16(s + 0.5)
}

const (
	narrow = 8000 / 50  // samples of 20 ms in G.711
	wide   = 16000 / 50 // in G.722
)

type g711Encoder struct {
	law  *law
	down *Down
	pcm  [narrow]float32
}

func newG711Encoder(id ID) *g711Encoder {
	return &g711Encoder{law: lawOf(id), down: NewDown(Rate/8000, FrameSamples)}
}

func (e *g711Encoder) Encode(dst []byte, pcm []float32) (int, error) {
	n := e.down.Process(e.pcm[:], pcm)
	for i, v := range e.pcm[:n] {
		dst[i] = e.law.encode[min((int32(toInt16(v))+32768+4)>>3, 1<<13-1)]
	}
	return n, nil
}

func (e *g711Encoder) Reset() error { e.down.Reset(); return nil }

type g722Encoder struct {
	enc  *g722.Encoder
	down *Down
	pcm  [wide]float32
	s16  [wide]int16
}

func newG722Encoder() *g722Encoder {
	return &g722Encoder{enc: g722.NewEncoder(g722.Rate64000, 0), down: NewDown(Rate/16000, FrameSamples)}
}

func (e *g722Encoder) Encode(dst []byte, pcm []float32) (int, error) {
	n := e.down.Process(e.pcm[:], pcm)
	for i, v := range e.pcm[:n] {
		e.s16[i] = toInt16(v)
	}
	return e.enc.Encode(dst, e.s16[:n]), nil
}

func (e *g722Encoder) Reset() error {
	e.down.Reset()
	*e.enc = *g722.NewEncoder(g722.Rate64000, 0)
	return nil
}

// phoneDecoder decodes G.711 and G.722: the codec, concealment at its own rate,
// then the resampler.
type phoneDecoder struct {
	law    *law          // nil: G.722
	g722   *g722.Decoder // nil: G.711
	factor int
	up     *Up
	plc    *concealer
	pcm    []float32
	s16    []int16
}

func newPhoneDecoder(id ID) *phoneDecoder {
	rate := 8000
	if id == G722 {
		rate = 16000
	}
	d := &phoneDecoder{factor: Rate / rate, plc: newConcealer(rate)}
	block := MaxSamples / d.factor
	d.up, d.pcm = NewUp(d.factor, block), make([]float32, block)
	if id == G722 {
		d.g722, d.s16 = g722.NewDecoder(g722.Rate64000, 0), make([]int16, block)
	} else {
		d.law = lawOf(id)
	}
	return d
}

func (d *phoneDecoder) Decode(dst []float32, payload []byte) (int, error) {
	n := phoneSamples(payload)
	if n == 0 || n > len(dst) {
		return 0, errPayload
	}
	pcm := d.pcm[:n/d.factor]
	if d.law != nil {
		for i, b := range payload {
			pcm[i] = d.law.decode[b]
		}
	} else {
		for i, v := range d.s16[:d.g722.Decode(d.s16[:len(pcm)], payload)] {
			pcm[i] = float32(v) / 32768
		}
	}
	d.plc.good(pcm)
	return d.up.Process(dst, pcm), nil
}

func (d *phoneDecoder) DecodeFEC(dst []float32, _ []byte) error { return d.Conceal(dst) }

func (d *phoneDecoder) Conceal(dst []float32) error {
	pcm := d.pcm[:len(dst)/d.factor]
	d.plc.conceal(pcm)
	d.up.Process(dst, pcm)
	return nil
}

func (d *phoneDecoder) Reset() error {
	d.up.Reset()
	d.plc.reset()
	if d.g722 != nil {
		*d.g722 = *g722.NewDecoder(g722.Rate64000, 0)
	}
	return nil
}

// phoneSamples is the length of a packet at [Rate]: G.711 and G.722 both have
// 8,000 bytes a second. 0 for lengths beyond 2.5 to 120 ms.
func phoneSamples(p []byte) int {
	n := len(p) * (Rate / 8000)
	if n < Rate/400 || n > MaxSamples {
		return 0
	}
	return n
}
