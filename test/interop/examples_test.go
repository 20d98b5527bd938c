//go:build interop

package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/webrtc/v3/pkg/media/oggreader"
	"gopkg.in/hraban/opus.v2"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// program is an example that runs.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	out *lockedBuffer
}

func start(t *testing.T, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(name, args...), out: new(lockedBuffer)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// stop asks it to end, which it must do in order and in time.
func (p *program) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Error(err)
	}
	late := time.AfterFunc(5*time.Second, func() {
		p.t.Errorf("%s does not end", p.cmd)
		if err := p.cmd.Process.Kill(); err != nil {
			p.t.Log(err)
		}
	})
	err := p.cmd.Wait()
	late.Stop()
	if err != nil && p.cmd.ProcessState.ExitCode() != -1 {
		p.t.Errorf("%s: %v", p.cmd, err)
	}
	if p.t.Failed() {
		p.t.Logf("%s said:\n%s", p.cmd, p.out.String())
	}
}

// stage is a room of its own for one example, with somebody who hears each of its
// speakers apart, writes to the chat and never speaks.
type stage struct {
	*node
	t    *testing.T
	name string
	room *parley.Room
	mu   sync.Mutex
	pcm  map[string][]int16 // by speaker
}

// stage makes the room, a bot with these rights for the example, and returns the
// bot's credentials.
func (n *node) stage(t *testing.T, name string, rights string) (s *stage, creds string) {
	t.Helper()
	n.parley("room", "create", name)
	dir := t.TempDir()
	creds = filepath.Join(dir, "bot.creds")
	n.parley("bot", "create", name+"-bot", "--room", name, "--allow", rights, "--out", creds)
	own := filepath.Join(dir, "own.creds")
	n.parley("bot", "create", name+"-ear", "--room", name, "--allow", "listen,chat", "--out", own)
	room, err := parley.Connect(parley.Options{Creds: own, URL: n.busURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(room.Close)
	here := *n
	here.t = t // what fails is this part of the test
	return &stage{node: &here, t: t, name: name, room: room, pcm: map[string][]int16{}}, creds
}

// enter joins and begins to hear.
func (s *stage) enter() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := s.room.Join(ctx, "Ear"); err != nil {
		s.t.Fatal(err)
	}
	audio, err := s.room.Listen(ctx, contract.Listen{Speakers: contract.FormatPCM48}, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer audio.Close()
		for {
			f, err := audio.Read(ctx)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.pcm[f.Speaker] = append(s.pcm[f.Speaker], samples(f.Data)...)
			s.mu.Unlock()
		}
	})
	s.t.Cleanup(func() { cancel(); wg.Wait() })
}

// came returns how many ms one speaker was heard so far.
func (s *stage) came(who string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pcm[who]) * 1000 / rate
}

// level returns how loud a tone is in the last ms of what one speaker said.
func (s *stage) level(who string, freq float64, ms int) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	pcm := s.pcm[who]
	return levelOf(pcm[max(0, len(pcm)-ms*rate/1000):], freq)
}

func (s *stage) people() (people []contract.Participant) {
	s.t.Helper()
	r, err := parley.Call(context.Background(), s.room, contract.RoomGet, contract.None{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Room.Participants
}

func (s *stage) await(name string) {
	s.t.Helper()
	s.wait(name+" is in the room", 15*time.Second, func() bool {
		return slices.ContainsFunc(s.people(), func(p contract.Participant) bool { return p.Name == name })
	})
}

// says waits for a chat message.
func (s *stage) says(text string) {
	s.t.Helper()
	s.wait("the chat has "+text, 10*time.Second, func() bool {
		h, err := parley.Call(context.Background(), s.room, contract.RoomHistory, contract.ChatQuery{Limit: 200})
		if err != nil {
			if !errors.Is(err, contract.ErrNotFound) {
				s.t.Fatal(err)
			}
			return false
		}
		return slices.ContainsFunc(h.Messages, func(m contract.ChatMessage) bool { return strings.Contains(m.Body, text) })
	})
}

// play lets people act by a script of `parley sim`.
func (s *stage) play(script string) *program {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "script.yaml")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return start(s.t, s.bin, "sim", "--data", s.data, "--room", s.name, "--script", path)
}

// Each example does its job against a node, and so does the JavaScript SDK.
func TestExamples(t *testing.T) {
	n := startNode(t)
	dir := t.TempDir()
	build := exec.Command("go", "build", "-tags", "nolibopusfile", "-o", dir, "../../examples/announcer", "../../examples/echo",
		"../../examples/moderator", "../../examples/recorder")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(t *testing.T, name, creds string, args ...string) *program {
		t.Helper()
		return start(t, filepath.Join(dir, name), append([]string{"-creds", creds, "-url", n.busURL()}, args...)...)
	}

	t.Run("announcer", func(t *testing.T) {
		s, creds := n.stage(t, "announcer", "speak")
		wav := filepath.Join(t.TempDir(), "welcome.wav")
		if err := writeWAV(wav, tone(440, -20, 20)); err != nil {
			t.Fatal(err)
		}
		run(t, "announcer", creds, "-wav", wav)
		s.await("Announcer")
		s.enter()
		s.wait("the WAV is heard", 5*time.Second, func() bool { return s.came("announcer-bot") > 600 && s.level("announcer-bot", 440, 300) > -30 })
		s.play("people: [{name: Ann, speak: [{from: 1s, to: 4s, tone: 1000}]}]")
		s.wait("somebody speaks", 5*time.Second, func() bool {
			return slices.ContainsFunc(s.people(), func(p contract.Participant) bool { return p.Name == "Ann" && p.Speaking })
		})
		time.Sleep(500 * time.Millisecond)
		was := s.came("announcer-bot")
		time.Sleep(time.Second)
		if more := s.came("announcer-bot") - was; more > 0 {
			t.Errorf("it played %d ms while somebody spoke", more)
		}
		fmt.Println("example: announcer: its WAV is heard, and silent at once when somebody speaks")
	})

	t.Run("recorder", func(t *testing.T) {
		s, creds := n.stage(t, "recorder", "listen")
		files := t.TempDir()
		p := run(t, "recorder", creds, "-dir", files)
		s.await("Recorder")
		sim := s.play("people: [{name: Ann, speak: [{from: 500ms, to: 4s, tone: 700}]}, {name: Bob, speak: [{from: 1s, to: 4s, tone: 1100}]}]")
		if err := sim.cmd.Wait(); err != nil {
			t.Errorf("sim: %v\n%s", err, sim.out.String())
		}
		p.stop()
		ogg, err := filepath.Glob(filepath.Join(files, "*.ogg"))
		if err != nil || len(ogg) != 3 {
			t.Fatalf("files: %v (%v), one of the mix and one of each of two were due", ogg, err)
		}
		var heard [2]int
		for _, path := range ogg {
			pcm := decodeOgg(t, path)
			mix := strings.HasPrefix(filepath.Base(path), "mix-")
			a, b := levelOf(pcm[rate*3/2:rate*5/2], 700), levelOf(pcm[rate*3/2:rate*5/2], 1100)
			fmt.Printf("example: recorder: %s: %.2f s; Ann %.1f dBFS, Bob %.1f dBFS\n", map[bool]string{true: "mix", false: "speaker"}[mix], float64(len(pcm))/rate, a, b)
			switch {
			case mix && (a < -30 || b < -30), !mix && max(a, b) < -30, !mix && min(a, b) > -50:
				t.Errorf("%s has Ann at %.1f and Bob at %.1f dBFS", path, a, b)
			case !mix && a > b:
				heard[0]++
			case !mix:
				heard[1]++
			}
		}
		if heard != [2]int{1, 1} {
			t.Errorf("files of Ann and Bob: %v", heard)
		}
	})

	t.Run("moderator", func(t *testing.T) {
		s, creds := n.stage(t, "moderator", "listen,chat,moderate")
		run(t, "moderator", creds)
		s.await("Moderator")
		s.play("people: [{name: Shouter, speak: [{from: 500ms, to: 20s, tone: 700, level: -3}]}, {name: Quiet, speak: [{from: 500ms, to: 20s, tone: 1100}]}]")
		muted := func(name string) bool {
			return slices.ContainsFunc(s.people(), func(p contract.Participant) bool { return p.Name == name && p.Muted })
		}
		s.wait("the shouter is muted", 10*time.Second, func() bool { return muted("Shouter") })
		s.says("Shouter was muted")
		if muted("Quiet") {
			t.Error("who does not shout is muted too")
		}
		fmt.Println("example: moderator: who shouted was muted and told so, who did not was left alone")
	})

	t.Run("echo", func(t *testing.T) {
		s, creds := n.stage(t, "echo", "listen,speak")
		run(t, "echo", creds)
		s.await("Echo test")
		s.enter()
		s.play("people: [{name: Ann, speak: [{from: 500ms, to: 2500ms, tone: 700}], leave: 10s}]")
		s.wait("the echo is heard", 10*time.Second, func() bool { return s.came("echo-bot") > 1500 })
		l := s.level("echo-bot", 700, 1000)
		fmt.Printf("example: echo: said back at %.1f dBFS\n", l)
		if l < -30 {
			t.Errorf("the echo has the tone at %.1f dBFS", l)
		}
	})

	t.Run("helper in JavaScript", func(t *testing.T) {
		s, creds := n.stage(t, "helper", "chat")
		start(t, "node", "../../examples/js/helper.js", creds, n.busURL())
		s.await("Helper")
		s.enter()
		s.says("Welcome, Ear")
		for ask, answer := range map[string]string{"!who": "Here: Ear", "!hands": "No hand is up", "!help": "!who: who is here"} {
			if _, err := s.room.Chat(context.Background(), ask); err != nil {
				t.Fatal(err)
			}
			s.says(answer)
		}
		fmt.Println("example: helper.js: greets and answers in the chat")
	})

	t.Run("the JavaScript SDK hears and speaks", func(t *testing.T) {
		s, creds := n.stage(t, "sdk", "listen,speak")
		start(t, "node", "sdk.mjs", creds, n.busURL())
		s.await("SDK")
		s.enter()
		s.play("people: [{name: Ann, speak: [{from: 500ms, to: 20s, tone: 700}]}]")
		s.wait("what it heard is said", 10*time.Second, func() bool { return s.came("sdk-bot") > 1500 })
		l := s.level("sdk-bot", 700, 1000)
		fmt.Printf("example: sdk/js: said back at %.1f dBFS\n", l)
		if l < -30 {
			t.Errorf("the tone comes back at %.1f dBFS", l)
		}
	})
}

// decodeOgg reads a whole Ogg Opus file, with the check sum of each page, and
// decodes it to one channel.
func decodeOgg(t *testing.T, path string) []int16 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, h, err := oggreader.NewWith(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if h.SampleRate != rate || h.Channels < 1 || h.Channels > 2 {
		t.Errorf("%s: %d Hz, %d channels", path, h.SampleRate, h.Channels)
	}
	dec, err := opus.NewDecoder(rate, 1)
	if err != nil {
		t.Fatal(err)
	}
	var out []int16
	frame := make([]int16, rate*120/1000)
	for tags := true; ; {
		page, _, err := r.ParseNextPage()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if tags {
			if !strings.HasPrefix(string(page), "OpusTags") {
				t.Fatalf("%s: no OpusTags", path)
			}
			tags = false
			continue
		}
		if len(page) == 0 {
			continue // the end of the stream
		}
		n, err := dec.Decode(page, frame)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, frame[:n]...)
	}
}
