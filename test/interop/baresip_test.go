//go:build interop

package interop

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// baresip is a SIP phone that plays a WAV file and writes what it hears into
// another.
type baresip struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	out *lockedBuffer
}

// phone describes one.
type phone struct {
	name      string
	freq      float64
	codec     string // "opus/48000/1", "PCMU/8000/1"
	transport string // "udp", "tcp" or "tls"
	cert      string // PEM file with the chain and the key that the phone shows; empty: none
	room, pin string // empty: main, without a PIN
	sip       string // HOST:PORT that it calls; empty: the node
	srtp      bool
	waits     bool // it calls nobody, and takes calls
}

// call starts a phone that calls the room main.
func (n *node) call(p phone, port int) *baresip {
	n.t.Helper()
	b := &baresip{t: n.t, dir: n.t.TempDir(), out: new(lockedBuffer)}
	mic := tone(p.freq, -20, micSeconds()) // at its end the phone hangs up
	if err := writeWAV(filepath.Join(b.dir, "mic.wav"), mic); err != nil {
		n.t.Fatal(err)
	}
	enc := ""
	if p.srtp {
		enc = ";mediaenc=srtp-mand"
	}
	addr, cert := n.sipAddr(), ""
	if p.transport == "tls" {
		addr = fmt.Sprintf("127.0.0.1:%d", n.base+3)
	}
	addr = cmp.Or(p.sip, addr)
	if p.cert != "" {
		cert = "sip_certificate " + p.cert + "\n"
	}
	if p.waits {
		enc = strings.Replace(enc, "-mand", "", 1) + ";answermode=auto" // what is offered to it is optional (RFC 8643)
	}
	room, auth := cmp.Or(p.room, "main"), ""
	if p.pin != "" {
		auth = fmt.Sprintf(";auth_user=%s;auth_pass=%s", room, p.pin)
	}
	files := map[string]string{
		"config": fmt.Sprintf(`poll_method epoll
sip_listen 127.0.0.1:%d
audio_player aubridge,nil
audio_source aufile,%s/mic.wav
audio_alert aubridge,nil
ausrc_srate 48000
auplay_srate 48000
ausrc_channels 1
auplay_channels 1
audio_level no
rtp_ports %d-%d
module_path /usr/lib/baresip/modules
module opus.so
module g711.so
module g722.so
module srtp.so
module aufile.so
module aubridge.so
module sndfile.so
snd_path %s
module_tmp uuid.so
module_tmp account.so
module_app menu.so
opus_bitrate 32000
opus_stereo no
opus_sprop_stereo no
%s`, port, b.dir, port+2, port+12, b.dir, cert),
		"accounts": fmt.Sprintf("\"%s\" <sip:%s@127.0.0.1:%d;transport=%s>;regint=0;audio_codecs=%s%s%s\n", p.name, p.name, port, p.transport, p.codec, enc, auth),
		"contacts": "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	b.cmd = exec.Command("baresip", "-4", "-f", b.dir)
	if !p.waits {
		b.cmd.Args = append(b.cmd.Args, "-e", fmt.Sprintf("/dial sip:%s@%s;transport=%s", room, addr, p.transport))
	}
	b.cmd.Stdout, b.cmd.Stderr = b.out, b.out
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := b.cmd.Start(); err != nil {
		n.t.Fatalf("baresip: %v", err)
	}
	n.t.Cleanup(b.hangUp)
	return b
}

// micSeconds is how long a call may be: longer for the whole measure of junk.
func micSeconds() float64 {
	if os.Getenv("JUNK_MB") != "" {
		return 1200
	}
	return 300
}

// recording is the file with what is played.
func (b *baresip) recording() (recording, error) {
	files, err := filepath.Glob(filepath.Join(b.dir, "dump-*-dec.wav"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("the phone has %d recordings (%v)", len(files), err)
	}
	return openWAV(files[0])
}

// hangUp lets the phone say BYE and waits for it to end.
func (b *baresip) hangUp() {
	if b.cmd.ProcessState != nil {
		return
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Log(err)
	}
	if err := b.cmd.Wait(); err != nil {
		b.t.Logf("baresip: %v", err)
	}
	if b.t.Failed() {
		s := b.out.String()
		b.t.Logf("the phone said:\n%.4000s", s)
	}
}
