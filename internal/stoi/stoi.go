// Package stoi measures how intelligible speech is after something was done to it: the short-time objective
// intelligibility measure of Taal, Hendriks, Heusdens and Jensen, "An Algorithm for Intelligibility Prediction of
// Time-Frequency Weighted Noisy Speech", IEEE Transactions on Audio, Speech, and Language Processing 19 (7), 2011.
// It is for tests.
package stoi

import "math"

// Rate is the sample rate of the measure, in Hz (section II of the paper, as are the other numbers).
const Rate = 10_000

const (
	frame    = 256 // samples of a frame, which overlap by half
	fftSize  = 512
	bands    = 15    // of a third of an octave
	lowest   = 150.0 // Hz, centre of the lowest
	segment  = 30    // frames, 384 ms
	clipping = 15.0  // dB, lower bound of the signal-to-distortion ratio
	dynamics = 40.0  // dB below the loudest frame there is no speech
)

// eps is what pystoi adds where a norm may be zero.
const eps = 2.220446049250313e-16

// Compare returns how intelligible heard is, from about 0 to 1 for what is like clean. Both are of the same length, in time
// with each other, at [Rate]; 0 when there are less than 384 ms of speech. The level of heard does not matter.
func Compare(clean, heard []float64) float64 {
	x, y := speech(clean[:min(len(clean), len(heard))], heard)
	xs, ys := spectrum(x), spectrum(y)
	if len(xs) < segment {
		return 0
	}
	limit := 1 + math.Pow(10, clipping/20)
	sum, n := 0.0, 0
	for m := segment; m <= len(xs); m++ {
		for b := range bands {
			var a, c [segment]float64
			var na, nc float64
			for k := range segment {
				a[k], c[k] = xs[m-segment+k][b], ys[m-segment+k][b]
				na, nc = na+a[k]*a[k], nc+c[k]*c[k]
			}
			scale := math.Sqrt(na) / (math.Sqrt(nc) + eps)
			for k := range segment {
				c[k] = min(c[k]*scale, a[k]*limit)
			}
			sum += correlation(&a, &c)
			n++
		}
	}
	return sum / float64(n)
}

func correlation(a, c *[segment]float64) float64 {
	var ma, mc float64
	for k := range segment {
		ma, mc = ma+a[k]/segment, mc+c[k]/segment
	}
	var aa, cc, ac float64
	for k := range segment {
		x, y := a[k]-ma, c[k]-mc
		aa, cc, ac = aa+x*x, cc+y*y, ac+x*y
	}
	return ac / ((math.Sqrt(aa) + eps) * (math.Sqrt(cc) + eps))
}

// window is a Hann window without its zeros.
var window = func() (w [frame]float64) {
	for i := range w {
		w[i] = 0.5 - 0.5*math.Cos(2*math.Pi*float64(i+1)/(frame+1))
	}
	return w
}()

// speech leaves out the frames in which clean has none, and joins the others by overlap and add.
func speech(clean, heard []float64) (x, y []float64) {
	var energy []float64
	loudest := math.Inf(-1)
	for at := 0; at < len(clean)-frame; at += frame / 2 {
		e := 0.0
		for i, w := range window {
			e += w * w * clean[at+i] * clean[at+i]
		}
		energy = append(energy, 20*math.Log10(math.Sqrt(e)+eps))
		loudest = max(loudest, energy[len(energy)-1])
	}
	x, y = make([]float64, len(clean)+frame), make([]float64, len(clean)+frame)
	to := 0
	for k, e := range energy {
		if loudest-dynamics-e >= 0 {
			continue
		}
		for i, w := range window {
			x[to+i] += w * clean[k*frame/2+i]
			y[to+i] += w * heard[k*frame/2+i]
		}
		to += frame / 2
	}
	if to == 0 {
		return nil, nil
	}
	return x[:to+frame/2], y[:to+frame/2]
}

// edges are the bins of the bands: from, and up to but not with.
var edges = func() (out [bands][2]int) {
	bin := func(hz float64) int { return int(math.Round(hz * fftSize / Rate)) }
	for b := range out {
		out[b] = [2]int{bin(lowest * math.Pow(2, float64(2*b-1)/6)), bin(lowest * math.Pow(2, float64(2*b+1)/6))}
	}
	return out
}()

// spectrum returns the amplitude in each band of each frame.
func spectrum(x []float64) (out [][bands]float64) {
	for at := 0; at < len(x)-frame; at += frame / 2 {
		var z [fftSize]complex128
		for i, w := range window {
			z[i] = complex(w*x[at+i], 0)
		}
		fft(z[:])
		var s [bands]float64
		for b, e := range edges {
			for k := e[0]; k < e[1]; k++ {
				s[b] += real(z[k])*real(z[k]) + imag(z[k])*imag(z[k])
			}
			s[b] = math.Sqrt(s[b])
		}
		out = append(out, s)
	}
	return out
}

// fft transforms in place; the length is a power of two.
func fft(z []complex128) {
	n := len(z)
	for i, j := 1, 0; i < n; i++ {
		bit := n >> 1
		for ; j&bit != 0; bit >>= 1 {
			j ^= bit
		}
		if j ^= bit; i < j {
			z[i], z[j] = z[j], z[i]
		}
	}
	for size := 2; size <= n; size *= 2 {
		for at := 0; at < n; at += size {
			for k := range size / 2 {
				a := -2 * math.Pi * float64(k) / float64(size)
				t := z[at+k+size/2] * complex(math.Cos(a), math.Sin(a))
				z[at+k+size/2] = z[at+k] - t
				z[at+k] += t
			}
		}
	}
}

// half is how many samples at 48 kHz to each side make one at [Rate].
const half = 120

// kernels are the windowed sinc, which ends at 4.7 kHz, for each fifth of a sample that an output can lie at.
var kernels = func() (out [5][2 * half]float64) {
	const cut = 4700.0 / 48000
	for phase := range out {
		for k := range out[phase] {
			d := float64(k-half) - float64(phase)/5
			h := 2 * cut
			if d != 0 {
				h = math.Sin(2*math.Pi*cut*d) / (math.Pi * d)
			}
			out[phase][k] = h * (0.5 + 0.5*math.Cos(math.Pi*d/(half+1)))
		}
	}
	return out
}()

// Resample brings 48 kHz to [Rate].
func Resample(in []float32) []float64 {
	out := make([]float64, len(in)*5/24)
	for n := range out {
		at := n * 24
		h := &kernels[at%5]
		for k, w := range h {
			if i := at/5 - half + k; i >= 0 && i < len(in) {
				out[n] += w * float64(in[i])
			}
		}
	}
	return out
}
