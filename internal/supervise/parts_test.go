package supervise

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

func glob(pattern string) []string {
	m, err := filepath.Glob(pattern)
	if err != nil {
		panic(err) // the pattern is a constant
	}
	return m
}

// gate blocks writing until it is opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	buf  bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func TestOutputKeepsLinesWhole(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	o := NewOutput(g)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			l := &lineWriter{out: o}
			for range 100 {
				line := strings.Repeat(itoa(w), 50) + "\n"
				io.WriteString(l, line[:20]) // in two pieces
				io.WriteString(l, line[20:])
			}
			io.WriteString(l, "end of "+itoa(w))
			l.flush()
		})
	}
	wg.Wait()
	o.Close()
	lines := strings.Split(strings.TrimSuffix(g.buf.String(), "\n"), "\n")
	if len(lines) != 404 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		if !strings.HasPrefix(l, "end of ") && (len(l) != 50 || strings.Trim(l, l[:1]) != "") {
			t.Fatalf("mixed line %q", l)
		}
	}
}

func TestOutputNeverBlocksAndCountsWhatIsLost(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	o := NewOutput(g)
	for range outputQueue + 100 {
		if n, err := o.Write([]byte("x\n")); n != 2 || err != nil {
			t.Fatal(n, err)
		}
	}
	close(g.open)
	o.Close()
	if !strings.Contains(g.buf.String(), "lines of output were lost") {
		t.Error("nothing is said of the loss")
	}
	o.Write([]byte("late\n")) // must not panic
}

func TestLineWriterCutsEndlessLines(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	o := NewOutput(g)
	l := &lineWriter{out: o}
	for range 40 {
		l.Write(bytes.Repeat([]byte("y"), 10<<10))
		if len(l.buf) > lineMax+10<<10 {
			t.Fatalf("%d bytes are held", len(l.buf))
		}
	}
	l.flush()
	o.Close()
	if n := strings.Count(g.buf.String(), "y"); n != 400<<10 {
		t.Errorf("%d bytes arrived", n)
	}
}

func TestMetricsOfAllProcesses(t *testing.T) {
	s := newFake(tempDir(t), devNull(t), nil, 0, "one-ok", "three-ok", "two-oddmetrics", "away-crash")
	start(t, s)
	eventually(t, "three are ready", func() bool {
		p := s.Processes()
		return p[0].Ready && p[1].Ready && p[2].Ready
	})
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`things{kind="a",process="one-ok"} 6`, `things{kind="a",process="three-ok"} 8`,
		`parley_process_up{process="one-ok"} 1`, `parley_process_restarts_total{process="one-ok"} 0`,
		`parley_scrape_errors_total{process="two-oddmetrics"} 1`, `parley_joinable{process="up"} 0`, `go_goroutines{process="up"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("missing %s", want)
		}
	}
	ready, err := http.Get(srv.URL + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	ready.Body.Close()
	if ready.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/readyz %s", ready.Status)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestUpSocketIsForTheOwner(t *testing.T) {
	dir := tempDir(t)
	for range 2 { // the second time a dead node's socket is there
		l, err := ListenUp(dir)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(UpSocket(dir))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", st.Mode(), err)
		}
		l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
		l.Close()
	}
}
