package stoi

import (
	"math"
	"testing"
)

// lcg is noise that other programs can make as well.
func lcg(s uint64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		s = s*6364136223846793005 + 1442695040888963407
		out[i] = float64(s>>11)/(1<<53)*2 - 1
	}
	return out
}

// chant is 3 s of seven tones that swell, with pauses.
func chant() []float64 {
	out := make([]float64, 3*Rate)
	for i := range out {
		t := float64(i) / Rate
		if math.Sin(2*math.Pi*0.5*t) <= -0.8 {
			continue
		}
		for k, f := range []float64{200, 430, 700, 1100, 1750, 2600, 3700} {
			swell := 0.5 + 0.5*math.Sin(2*math.Pi*(1.3+0.9*float64(k))*t+float64(k))
			out[i] += swell * swell * math.Sin(2*math.Pi*f*t) / (1 + 0.3*float64(k))
		}
	}
	return out
}

// TestAgainstPystoi: the values are those of pystoi 0.4.1 for the same signals.
func TestAgainstPystoi(t *testing.T) {
	x, n := chant(), lcg(42, 3*Rate)
	mixed := func(a float64) []float64 {
		y := make([]float64, len(x))
		for i := range y {
			y[i] = x[i] + a*n[i]
		}
		return y
	}
	gaps := mixed(0)
	for i := range gaps {
		if i%1000 < 200 {
			gaps[i] = 0
		}
	}
	for name, c := range map[string]struct {
		y    []float64
		want float64
	}{
		"itself": {x, 1}, "a little noise": {mixed(0.05), 0.965829918}, "noise": {mixed(0.2), 0.906672975}, "much noise": {mixed(0.8), 0.791566590},
		"mostly noise": {mixed(3.2), 0.609789890}, "noise alone": {n, 0.487759797}, "gaps": {gaps, 0.781137263},
	} {
		if got := Compare(x, c.y); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%s: %.9f, want %.9f", name, got, c.want)
		}
	}
	louder := mixed(0.2)
	for i := range louder {
		louder[i] *= 7
	}
	if got := Compare(x, louder); math.Abs(got-0.906672975) > 1e-6 {
		t.Errorf("the level matters: %f", got)
	}
	if got := Compare(x[:3000], x[:3000]); got != 0 {
		t.Errorf("of 0.3 s: %f", got)
	}
	if got := Compare(make([]float64, Rate), make([]float64, Rate)); math.Abs(got) > 1 {
		t.Errorf("of silence: %f", got)
	}
}

func TestResample(t *testing.T) {
	in := make([]float32, 48000)
	for i := range in {
		in[i] = float32(math.Sin(2*math.Pi*1000*float64(i)/48000) + math.Sin(2*math.Pi*7000*float64(i)/48000))
	}
	out := Resample(in)
	if len(out) != Rate {
		t.Fatalf("%d samples", len(out))
	}
	for i, v := range out[100 : Rate-100] {
		if want := math.Sin(2 * math.Pi * 1000 * float64(i+100) / Rate); math.Abs(v-want) > 0.01 {
			t.Fatalf("sample %d is %f, not %f", i, v, want)
		}
	}
}
