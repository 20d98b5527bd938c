//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// recording is what a peer got so far, in samples at 48 kHz. Nothing is written
// for the time in which nothing came: its length is how much came.
type recording interface {
	length() (int, error)
	from(at int) ([]int16, error)
}

// fresh waits until ms of sound came that was not there at the call, and returns
// them. Sound that stopped is an error: what was heard before proves nothing.
func fresh(r recording, ms int) ([]int16, error) {
	began := time.Now()
	at, err := r.length()
	if err != nil {
		return nil, err
	}
	limit := time.Duration(ms)*time.Millisecond*2 + time.Second
	for want := ms * rate / 1000; ; time.Sleep(10 * time.Millisecond) {
		n, err := r.length()
		if err != nil {
			return nil, err
		}
		if n-at >= want {
			s, err := r.from(at)
			return s[:min(want, len(s))], err
		}
		if took := time.Since(began); took > limit {
			return nil, fmt.Errorf("%d of %d ms of sound came in %v", (n-at)*1000/rate, ms, took.Round(time.Millisecond))
		}
	}
}

// watch notes when a recording grows, to find gaps in it by the clock.
type watch struct {
	r     recording
	began time.Time
	first int // samples at the beginning
	stop  chan struct{}
	done  sync.WaitGroup
	gap   time.Duration // the longest between two growths
	err   error
}

func startWatch(r recording) *watch {
	w := &watch{r: r, began: time.Now(), stop: make(chan struct{})}
	w.first, w.err = r.length()
	w.done.Go(w.run)
	return w
}

func (w *watch) run() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, at := w.first, w.began
	for {
		select {
		case <-w.stop:
			w.gap = max(w.gap, time.Since(at))
			return
		case <-tick.C:
		}
		n, err := w.r.length()
		if err != nil {
			w.err = err
			return
		}
		if now := time.Now(); n != last {
			w.gap = max(w.gap, now.Sub(at))
			last, at = n, now
		}
	}
}

// loss is what a peer missed of a time.
type loss struct {
	of      time.Duration
	missing time.Duration // did not come, or came without the other's tone
	gap     time.Duration // the longest time in which nothing came
}

func (l loss) String() string {
	return fmt.Sprintf("%d ms of sound missing, longest gap %d ms", l.missing.Milliseconds(), l.gap.Milliseconds())
}

// end returns what was missing of the tone since the watch began.
func (w *watch) end(freq float64) (loss, error) {
	close(w.stop)
	w.done.Wait()
	if w.err != nil {
		return loss{}, w.err
	}
	l := loss{of: time.Since(w.began), gap: w.gap}
	s, err := w.r.from(w.first)
	if err != nil {
		return loss{}, err
	}
	came := time.Duration(len(s)) * time.Second / rate
	l.missing = max(0, l.of-came)
	const window = rate / 25
	for part := range slices.Chunk(s, window) {
		if len(part) == window && levelOf(part, freq) < -40 {
			l.missing += 40 * time.Millisecond
		}
	}
	return l, nil
}

// wavFile is a phone's recording, which grows as it decodes.
type wavFile struct {
	path string
	wavFormat
}

func openWAV(path string) (wavFile, error) {
	h, err := wavHead(path)
	return wavFile{path, h}, err
}

func (f wavFile) length() (int, error) {
	st, err := os.Stat(f.path)
	if err != nil {
		return 0, err
	}
	return int(st.Size()-wavHeader) / f.frame() * f.repeat(), nil
}

func (f wavFile) from(at int) ([]int16, error) { return readWAV(f.path, at) }

// duo is a phone and a bot that hear each other, to see that a room keeps its
// sound while something is done to the node.
type duo struct {
	n     *node
	phone *baresip
	bot   *bot
}

func (n *node) duo() *duo {
	n.t.Helper()
	d := &duo{n: n, bot: n.startBot("tone", 1300), phone: n.call(phone{name: "udp", freq: 700, codec: "opus/48000/1", transport: "udp"}, n.base+30)}
	n.wait("the phone records", 15*time.Second, func() bool { _, err := d.phone.recording(); return err == nil })
	n.wait("phone and bot hear each other", 15*time.Second, func() bool { return d.deaf() == "" })
	return d
}

// deaf says who does not hear the other from now on.
func (d *duo) deaf() string {
	rec, err := d.phone.recording()
	if err != nil {
		return err.Error()
	}
	for _, e := range []struct {
		who  string
		r    recording
		freq float64
	}{{"phone", rec, 1300}, {"bot", d.bot, 700}} {
		s, err := fresh(e.r, 400)
		if err != nil {
			return fmt.Sprintf("the %s hears nothing: %v", e.who, err)
		}
		if l := levelOf(s, e.freq); l < -40 {
			return fmt.Sprintf("the %s hears the other at %.1f dBFS", e.who, l)
		}
	}
	return ""
}

// during does something to the node and returns what phone and bot missed of each
// other meanwhile. The room must keep its sound: on a machine that the attack itself and
// whatever else runs keep busy a quarter may be missing, and no second in one piece;
// what was missing is printed.
func (d *duo) during(what string, attack func()) string {
	t := d.n.t
	t.Helper()
	rec, err := d.phone.recording()
	if err != nil {
		t.Fatal(err)
	}
	watches := []struct {
		who  string
		w    *watch
		freq float64
	}{{"phone", startWatch(rec), 1300}, {"bot", startWatch(d.bot), 700}}
	attack()
	var out string
	for _, e := range watches {
		l, err := e.w.end(e.freq)
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf("; %s: %v", e.who, l)
		if bound := l.of/4 + 300*time.Millisecond; l.missing > bound || l.gap > time.Second {
			t.Errorf("%s, which took %v: the %s had %v", what, l.of.Round(time.Millisecond), e.who, l)
		}
	}
	d.still(what)
	return out
}

// still fails the test unless the room has its sound and all processes live.
func (d *duo) still(after string) {
	d.n.t.Helper()
	why := ""
	d.n.wait("sound after "+after, 10*time.Second, func() bool { why = d.deaf(); return why == "" })
	for _, p := range d.n.status().Processes {
		if p.Restarts != 0 {
			d.n.t.Errorf("after %s: %s was restarted", after, p.Name)
		}
	}
}

// The means of these tests: sound that stopped is found out.
func TestSoundThatStoppedIsNoSound(t *testing.T) {
	b := &bot{pcm: tone(700, -20, 3)}
	if _, err := fresh(b, 200); err == nil {
		t.Error("a stream that stopped passes")
	}
	w := startWatch(b)
	time.Sleep(300 * time.Millisecond)
	l, err := w.end(700)
	if err != nil || l.missing < 290*time.Millisecond || l.gap < 290*time.Millisecond {
		t.Errorf("a stream that stopped: %v %v", l, err)
	}
	w = startWatch(b)
	b.mu.Lock()
	b.pcm = append(b.pcm, make([]int16, rate)...) // the mixer runs, the tone is not in it
	b.mu.Unlock()
	if l, err = w.end(700); err != nil || l.missing < 990*time.Millisecond {
		t.Errorf("silence: %v %v", l, err)
	}
	path := filepath.Join(t.TempDir(), "x.wav")
	if err := writeWAV(path, tone(700, -20, 1)); err != nil {
		t.Fatal(err)
	}
	f, err := openWAV(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh(f, 200); err == nil {
		t.Error("a file that does not grow passes")
	}
}
