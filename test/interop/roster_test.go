//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

// stockRoom is a rendezvous that a stock moderator is in, of a stock host or ours.
type stockRoom struct {
	t    *testing.T
	name string
	mod  *rigPeer
	acc  string
	call string
	who  map[string]string // Jami Ids of who is there, by what they are
	seen map[string][]map[string]string
}

// at notes the state that the moderator is told once it is so.
func (s *stockRoom) at(what string, is func(all []map[string]string) bool) {
	s.t.Helper()
	s.mod.sees(s.call, s.name+": "+what, func(all []map[string]string) bool {
		s.seen[what] = all
		return is(all)
	})
}

// of is a participant's entry.
func (s *stockRoom) of(all []map[string]string, who string) map[string]string {
	for _, p := range all {
		if id, _, _ := strings.Cut(p["uri"], "@"); id == s.who[who] {
			return p
		}
	}
	return nil
}

// drill has a stock moderator do all that its buttons do, and notes what it is told each time.
func (s *stockRoom) drill(t *testing.T, guest *rigPeer, guestAcc, guestCall string) {
	t.Helper()
	var before map[string]string
	s.at("two callers", func(all []map[string]string) bool {
		before = s.of(all, "guest")
		mod := s.of(all, "moderator")
		return len(all) == 3 && before != nil && mod != nil && mod["isModerator"] == "true"
	})
	flag := func(who, field, want string) func([]map[string]string) bool {
		return func(all []map[string]string) bool { return s.of(all, who)[field] == want }
	}
	mute := func(on bool) {
		s.mod.call(nil, "call.muteStream", s.acc, s.call, s.who["guest"], before["device"], before["sinkId"], on)
	}
	mute(true)
	s.at("the guest is muted", flag("guest", "audioModeratorMuted", "true"))
	mute(false)
	s.at("the guest is no longer muted", flag("guest", "audioModeratorMuted", "false"))
	hand := func(p *rigPeer, acc, call, who string, on bool) {
		var all []map[string]string
		s.at("asks", func(x []map[string]string) bool { all = x; return true })
		delete(s.seen, "asks")
		p.call(nil, "call.raiseHand", acc, call, s.who[who], s.of(all, who)["device"], on)
	}
	hand(s.mod, s.acc, s.call, "moderator", true)
	s.at("the moderator's hand is up", flag("moderator", "handRaised", "true"))
	hand(s.mod, s.acc, s.call, "moderator", false)
	s.at("the moderator's hand is down", flag("moderator", "handRaised", "false"))
	hand(guest, guestAcc, guestCall, "guest", true)
	s.at("the guest's hand is up", flag("guest", "handRaised", "true"))
	hand(s.mod, s.acc, s.call, "guest", false)
	s.at("the moderator has lowered the guest's hand", flag("guest", "handRaised", "false"))
	guest.call(nil, "call.muteLocalMedia", guestAcc, guestCall, "MEDIA_TYPE_AUDIO", true)
	s.at("the guest muted itself", flag("guest", "audioLocalMuted", "true"))
	from := guest.mark()
	s.mod.call(nil, "call.hangupParticipant", s.acc, s.call, s.who["guest"], before["device"])
	guest.isOver(from, guestCall) // of which a stock host tells the last caller nothing
}

// TestRosterAsOfAStockHost: what a stock moderator is told of our room after each press of its
// buttons is what a stock host tells it, field by field.
func TestRosterAsOfAStockHost(t *testing.T) {
	r := startRig(t, 3)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222", "--rooms.all_moderators", "true")
	var ours contract.Account
	n.ask(&ours, "account", "show")
	mod, guest, host := r.peer(1), r.peer(2), r.peer(3)
	accM, idM := mod.account("ann", nil)
	accG, idG := guest.account("bob", nil)
	_, idH := host.account("room", map[string]string{"Account.rendezVous": "true", "Account.autoAnswer": "true", "Account.allModeratorsEnabled": "true", "Account.allModeratorEnabled": "true"})
	enter := func(name, id string) *stockRoom {
		t.Helper()
		s := &stockRoom{t: t, name: name, mod: mod, acc: accM, who: map[string]string{"moderator": idM, "guest": idG, "host": id}, seen: map[string][]map[string]string{}}
		s.call = mod.talkTo(accM, id, "")
		callG := guest.talkTo(accG, id, "")
		s.drill(t, guest, accG, callG)
		from := mod.mark()
		mod.call(nil, "call.hangUp", accM, s.call)
		mod.isOver(from, s.call)
		return s
	}
	theirs, mine := enter("stock", idH), enter("ours", ours.ID)
	steps := slices.Sorted(maps.Keys(theirs.seen))
	if got := slices.Sorted(maps.Keys(mine.seen)); !slices.Equal(got, steps) {
		t.Fatalf("%v, want %v", got, steps)
	}
	differ := 0
	for _, step := range steps {
		for _, who := range []string{"host", "moderator", "guest"} {
			a, b := theirs.of(theirs.seen[step], who), mine.of(mine.seen[step], who)
			if (a == nil) != (b == nil) {
				t.Errorf("%s: the %s: a stock host tells %v, ours %v", step, who, a, b)
				continue
			}
			for _, field := range slices.Sorted(maps.Keys(a)) {
				x, y := shape(field, a[field], theirs.who), shape(field, b[field], mine.who)
				if _, ok := b[field]; !ok || x != y {
					differ++
					t.Errorf("%s: the %s: %s: a stock host tells %q, ours %q", step, who, field, a[field], b[field])
				}
			}
			for field := range b {
				if _, ok := a[field]; !ok {
					t.Errorf("%s: the %s: %s: only ours tells it", step, who, field)
				}
			}
		}
	}
	text, err := json.Marshal(mine.seen["the guest is muted"])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("roster: %d steps, %d fields that differ; told when the guest is muted: %s", len(steps), differ, text)
	n.stop()
}

// shape is a field without what is of one room alone.
func shape(field, value string, who map[string]string) string {
	switch field {
	case "uri":
		id, rest, _ := strings.Cut(value, "@")
		for name, x := range who {
			if x == id {
				return name + "@" + rest
			}
		}
	case "device":
		return fmt.Sprintf("%d digits", len(value))
	case "sinkId":
		if i := strings.LastIndex(value, "_audio_"); i >= 0 {
			return value[i:]
		}
	case "voiceActivity": // it comes and goes
		return ""
	}
	return value
}
