package codec

// concealer makes up lost sound for codecs that have no concealment of their
// own, by repeating the last pitch period and fading out, in the way of G.711
// appendix I. It works at the codec's own rate.
type concealer struct {
	rate   int
	hist   []float32 // the last 45 ms that were played
	period int       // of what is being repeated, in samples; 0: nothing is
	pos    int       // position in the period
	run    int       // samples made up since the last good one
}

// Bounds of the pitch: 66 to 400 Hz.
const (
	pitchMinDiv = 400
	pitchMaxDiv = 66
)

// The fade of made-up sound begins after 10 ms and ends at 60 ms.
const (
	fadeAfterDiv = 100
	fadeEndMs    = 60
)

func newConcealer(rate int) *concealer {
	return &concealer{rate: rate, hist: make([]float32, rate*45/1000)}
}

func (c *concealer) reset() {
	clear(c.hist)
	c.period, c.pos, c.run = 0, 0, 0
}

// good takes a decoded block. The first one after a loss is crossfaded with what
// the concealment would have gone on with, in place, over 4 ms.
func (c *concealer) good(pcm []float32) {
	if c.run > 0 {
		n := min(len(pcm), c.rate/250)
		for i := range n {
			w := float32(i+1) / float32(n+1)
			pcm[i] = w*pcm[i] + (1-w)*c.next()
		}
		c.run, c.period = 0, 0
	}
	c.remember(pcm)
}

// conceal fills pcm.
func (c *concealer) conceal(pcm []float32) {
	if c.period == 0 {
		c.period, c.pos = c.pitch(), 0
		c.smooth()
	}
	for i := range pcm {
		pcm[i] = c.next()
	}
}

// next is the next made-up sample.
func (c *concealer) next() float32 {
	if c.period == 0 {
		return 0
	}
	v := c.hist[len(c.hist)-c.period+c.pos]
	if c.pos++; c.pos == c.period {
		c.pos = 0
	}
	c.run++
	from, end := c.rate/fadeAfterDiv, c.rate*fadeEndMs/1000
	switch {
	case c.run <= from:
		return v
	case c.run >= end:
		return 0
	}
	return v * float32(end-c.run) / float32(end-from)
}

func (c *concealer) remember(pcm []float32) {
	if len(pcm) >= len(c.hist) {
		copy(c.hist, pcm[len(pcm)-len(c.hist):])
		return
	}
	copy(c.hist, c.hist[len(pcm):])
	copy(c.hist[len(c.hist)-len(pcm):], pcm)
}

// smooth fades the end of the last period into what comes before its beginning,
// so that the repetition has no edge.
func (c *concealer) smooth() {
	n, end := c.period/4, len(c.hist)
	for i := range n {
		w := float32(i+1) / float32(n+1)
		c.hist[end-n+i] = (1-w)*c.hist[end-n+i] + w*c.hist[end-n-c.period+i]
	}
}

// pitch finds the lag that the last 15 ms resemble most. It looks at every
// second sample at 16 kHz: the pitch is far below either rate.
func (c *concealer) pitch() int {
	step := c.rate / 8000
	lo, hi := c.rate/pitchMinDiv, c.rate/pitchMaxDiv
	win := c.rate * 15 / 1000
	ref := c.hist[len(c.hist)-win:]
	best, bestScore := hi, float32(0)
	for lag := lo; lag <= hi; lag += step {
		x := c.hist[len(c.hist)-win-lag:]
		var xy, xx float32 = 0, 1e-9
		for i := 0; i < win; i += step {
			xy += x[i] * ref[i]
			xx += x[i] * x[i]
		}
		if xy > 0 && xy*xy > bestScore*xx {
			best, bestScore = lag, xy*xy/xx
		}
	}
	return best
}
