//go:build interop

package interop

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// TestStockRendezvous: stock daemons call the node's account, are in its room, hear each other
// and not themselves, see who is there, and are muted and put out by a moderator's order.
func TestStockRendezvous(t *testing.T) {
	const peers = 2
	r := startRig(t, peers)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222", "--rooms.all_moderators", "true")
	var ours contract.Account
	n.ask(&ours, "account", "show")
	tones := []float64{440, 880}
	var ps [peers]*rigPeer
	var accs, ids, calls [peers]string
	for i := range ps {
		ps[i] = r.peer(i + 1)
		accs[i], ids[i] = ps[i].account(fmt.Sprintf("caller%d", i+1), nil)
	}
	for i, p := range ps {
		calls[i] = p.talkTo(accs[i], ours.ID, "")
	}
	room := n.room("main")
	if len(room.Participants) != peers {
		t.Errorf("in the room: %+v", room.Participants)
	}
	for _, q := range room.Participants {
		if i := slices.Index(ids[:], q.JamiID); i < 0 || q.Kind != contract.KindJami || q.Name != fmt.Sprintf("caller%d", i+1) || q.JamiDevice == "" || q.Transport != "jami" {
			t.Errorf("participant %+v", q)
		}
	}
	for i, p := range ps {
		r.speaks(p, tones[i], 25)
	}
	levels := func() (m [peers][peers]float64) {
		for i, p := range ps {
			for k, hz := range tones {
				m[i][k] = r.hears(p, hz)
			}
		}
		return m
	}
	limit := time.Now().Add(15 * time.Second)
	m := levels()
	for ; (m[0][1] < -45 || m[1][0] < -45) && time.Now().Before(limit); m = levels() {
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(2 * time.Second) // of what is measured now all was said in the room
	m = levels()
	for i := range m {
		for k, level := range m[i] {
			t.Logf("rendezvous: peer %d hears peer %d at %.1f dBFS", i+1, k+1, level)
			if i == k && level > -75 || i != k && level < -45 {
				t.Errorf("peer %d hears peer %d at %.1f dBFS", i+1, k+1, level)
			}
		}
	}
	ps[0].sees(calls[0], "all participants", func(all []map[string]string) bool {
		return len(all) == 3 && slices.ContainsFunc(all, func(p map[string]string) bool {
			return strings.HasPrefix(p["uri"], ids[1]) && p["isModerator"] == "true"
		})
	})
	// The first one, a moderator, mutes the second, and then puts it out.
	second := room.Participants[slices.IndexFunc(room.Participants, func(p contract.Participant) bool { return p.JamiID == ids[1] })]
	ps[0].call(nil, "call.muteStream", accs[0], calls[0], ids[1], second.JamiDevice, second.ID+"_audio_0", true)
	ps[0].sees(calls[0], "the mute", func(all []map[string]string) bool {
		return slices.ContainsFunc(all, func(p map[string]string) bool {
			return strings.HasPrefix(p["uri"], ids[1]) && p["audioModeratorMuted"] == "true"
		})
	})
	from := ps[1].mark()
	ps[0].call(nil, "call.hangupParticipant", accs[0], calls[0], ids[1], second.JamiDevice)
	ps[1].hasSignal(from, 20*time.Second, "its call ends", func(e rigEvent) bool {
		return e.name == "callStateChanged" && has(e.args, calls[1]) && (has(e.args, "OVER") || has(e.args, "HUNGUP"))
	})
	ps[0].call(nil, "call.hangUp", accs[0], calls[0])
	for end := time.Now().Add(10 * time.Second); len(n.room("main").Participants) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still in the room: %+v", n.room("main").Participants)
		}
	}
	n.stop()
}

// room is a room as the operator sees it.
func (n *rigNode) room(name string) contract.Room {
	n.r.t.Helper()
	var list contract.RoomList
	n.ask(&list, "room", "list")
	for _, r := range list.Rooms {
		if r.Name == name {
			return r
		}
	}
	n.r.t.Fatalf("no room %s", name)
	return contract.Room{}
}

// talkTo calls and waits until they talk; it returns the call.
func (p *rigPeer) talkTo(acc, to, video string) (call string) {
	p.t.Helper()
	from, began := p.mark(), time.Now()
	media := []map[string]string{{"MEDIA_TYPE": "MEDIA_TYPE_AUDIO", "ENABLED": "true", "MUTED": "false", "SOURCE": "", "LABEL": "audio_0"}}
	if video != "" {
		media = append(media, map[string]string{"MEDIA_TYPE": "MEDIA_TYPE_VIDEO", "ENABLED": "true", "MUTED": "false", "SOURCE": video, "LABEL": "video_0"})
	}
	p.call(&call, "call.placeCallWithMedia", acc, to, media)
	p.hasSignal(from, time.Minute, "they talk", func(e rigEvent) bool {
		return e.name == "callStateChanged" && has(e.args, call) && has(e.args, "CURRENT")
	})
	p.t.Logf("rendezvous: peer %d is in the room after %v", p.i, time.Since(began))
	return call
}

// hasSignal waits for a signal from a mark on.
func (p *rigPeer) hasSignal(from int, limit time.Duration, what string, is func(rigEvent) bool) {
	p.t.Helper()
	var seen []rigEvent
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		seen = p.events(from)
		if slices.ContainsFunc(seen, is) {
			return
		}
	}
	p.t.Fatalf("peer %d: not within %v: %s; came %v", p.i, limit, what, seen)
}

// sees waits until the last state of the conference that a peer was told is so.
func (p *rigPeer) sees(call, what string, is func([]map[string]string) bool) {
	p.t.Helper()
	var last []map[string]string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, e := range p.events(0) {
			if e.name == "onConferenceInfosUpdated" && has(e.args, call) {
				var infos []map[string]string
				if err := json.Unmarshal(e.args[1], &infos); err != nil {
					p.t.Fatal(err)
				}
				last = infos
			}
		}
		if is(last) {
			return
		}
	}
	p.t.Fatalf("peer %d was not told of %s; the last state is %v", p.i, what, last)
}

// speaks plays a tone into a peer's microphone for some seconds.
func (r *rig) speaks(p *rigPeer, hz, seconds float64) {
	r.t.Helper()
	wav := filepath.Join(r.t.TempDir(), fmt.Sprintf("%d.wav", p.i))
	if err := writeWAV(wav, tone(hz, -10, seconds)); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(r.script, "exec", fmt.Sprint(p.i), "paplay", "-d", "micsink", wav)
	cmd.Env = append(os.Environ(), "RIG_STATE="+r.state)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Kill() // an error: it has ended
		cmd.Wait()         //nolint:errcheck // it was killed
	})
}

// comesToHear waits until a peer hears a tone, or for loud false no more hears it, 20 s at most, and returns its level then.
func (r *rig) comesToHear(p *rigPeer, hz float64, loud bool) (level float64, ok bool) {
	r.t.Helper()
	level = r.hears(p, hz)
	for end := time.Now().Add(20 * time.Second); loud != (level > -45); level = r.hears(p, hz) {
		if time.Now().After(end) {
			return level, false
		}
		time.Sleep(200 * time.Millisecond)
	}
	return level, true
}

// hears returns the level of a tone in the last 2 s that a peer's speaker played.
func (r *rig) hears(p *rigPeer, hz float64) float64 {
	r.t.Helper()
	f, err := os.Open(filepath.Join(r.state, fmt.Sprintf("p%d", p.i), "heard.raw"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		r.t.Fatal(err)
	}
	raw := make([]byte, min(st.Size()&^1, 2*2*rate))
	if _, err := f.ReadAt(raw, st.Size()&^1-int64(len(raw))); err != nil && err != io.EOF {
		r.t.Fatal(err)
	}
	s := make([]int16, len(raw)/2)
	for i := range s {
		s[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	return levelOf(s, hz)
}
