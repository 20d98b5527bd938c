//go:build interop

package interop

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// browser is a Chromium with a WAV file for a microphone.
type browser struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log *lockedBuffer
}

func startBrowser(t *testing.T, freq float64) *browser {
	t.Helper()
	return startBrowserBy(t, freq)
}

// startBrowserBy starts it by a command that takes another one, such as `ip netns exec`.
func startBrowserBy(t *testing.T, freq float64, by ...string) *browser {
	t.Helper()
	mic := filepath.Join(t.TempDir(), "mic.wav")
	if err := writeWAV(mic, tone(freq, -20, 60)); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, log: new(lockedBuffer)}
	by = append(by, "node", "browser.mjs", mic)
	b.cmd = exec.Command(by[0], by[1:]...)
	b.cmd.Stderr = b.log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	in, err := b.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.in, b.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("node browser.mjs: %v", err)
	}
	t.Cleanup(b.close)
	return b
}

func (b *browser) do(cmd map[string]any, res any) error {
	line, err := json.Marshal(cmd)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(b.in, "%s\n", line)
	var answer []byte
	if err == nil {
		answer, err = b.out.ReadBytes('\n')
	}
	if err != nil { // it has ended, or ends: what it says last tells why
		return fmt.Errorf("browser: %w: %w\n%s", err, b.cmd.Wait(), b.log.String())
	}
	var a struct {
		OK    json.RawMessage `json:"ok"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return err
	}
	if a.Error != "" {
		return fmt.Errorf("browser: %s\n%s", a.Error, b.log.String())
	}
	if res == nil {
		return nil
	}
	return json.Unmarshal(a.OK, res)
}

func (b *browser) open(url, name string) {
	b.t.Helper()
	if err := b.do(map[string]any{"do": "open", "url": url, "name": name}, nil); err != nil {
		b.t.Fatal(err)
	}
}

// fresh waits for ms of sound to be played and returns them.
func (b *browser) fresh(ms int) ([]int16, error) {
	var s string
	if err := b.do(map[string]any{"do": "hear", "ms": ms}, &s); err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	return samples(raw), err
}

// last returns the last ms that were played.
func (b *browser) last(ms int) ([]int16, error) {
	var s string
	if err := b.do(map[string]any{"do": "last", "ms": ms}, &s); err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	return samples(raw), err
}

// played is what the browser's last peer connection has played, in ms.
type played struct {
	PC        int     `json:"pc"` // how many the page has made
	At        float64 `json:"at"`
	Received  float64 `json:"received"`  // that came in packets
	Concealed float64 `json:"concealed"` // that it made up for lack of packets
}

func (b *browser) played() (p played) {
	b.t.Helper()
	if err := b.do(map[string]any{"do": "played"}, &p); err != nil {
		b.t.Fatal(err)
	}
	return p
}

// missing returns how many ms of sound did not come since an earlier moment: the
// time that passed less what came. Concealment has no part in it: it could not
// show more than a page plays.
func (p played) missing(was played) int {
	return max(0, int(p.At-was.At-(p.Received-was.Received)))
}

func (b *browser) close() {
	if b.cmd.ProcessState != nil {
		return
	}
	if _, err := io.WriteString(b.in, `{"do":"close"}`+"\n"); err != nil {
		b.t.Log(err)
	}
	if err := b.in.Close(); err != nil {
		b.t.Log(err)
	}
	if err := b.cmd.Wait(); err != nil {
		b.t.Logf("browser: %v", err)
	}
	if b.t.Failed() {
		b.t.Logf("the browser said:\n%s", b.log.String())
	}
}
