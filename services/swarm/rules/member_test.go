package rules_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/rules"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

type files = map[string][]byte

// edited is a list of files after some were put in and some (nil) taken out.
func edited(f files, change files) files {
	out := maps.Clone(f)
	for p, b := range change {
		if b == nil {
			delete(out, p)
		} else {
			out[p] = b
		}
	}
	return out
}

var empty = []byte{}

func TestFirstCommit(t *testing.T) {
	ann, bob := swarmtest.New(t), swarmtest.New(t)
	own := files{"admins/" + ann.URI + ".crt": ann.AccountPEM, "devices/" + ann.Device + ".crt": ann.DevicePEM}
	for _, tt := range []struct {
		name, message string
		files         files
		ok            bool
	}{
		{"of several", `{"mode":2,"type":"initial"}`, own, true},
		{"public", `{"mode":3,"type":"initial"}`, own, true},
		{"of two", `{"invited":"` + bob.URI + `","mode":0,"type":"initial"}`, edited(own, files{"invited/" + bob.URI: empty}), true},
		{"of two with nobody", `{"mode":0,"type":"initial"}`, own, false},
		{"of two with a path", `{"invited":"../x","mode":0,"type":"initial"}`, own, false},
		{"no mode", `{"type":"initial"}`, own, false},
		{"mode 9", `{"mode":9,"type":"initial"}`, own, false},
		{"mode 22", `{"mode":22,"type":"initial"}`, own, false},
		{"a text", `{"body":"x","type":"text/plain"}`, own, false},
		{"somebody is in already", `{"mode":2,"type":"initial"}`, edited(own, files{"members/" + bob.URI + ".crt": bob.AccountPEM}), false},
		{"somebody is invited already", `{"mode":2,"type":"initial"}`, edited(own, files{"invited/" + bob.URI: empty}), false},
		{"an invitation that says something", `{"invited":"` + bob.URI + `","mode":0,"type":"initial"}`, edited(own, files{"invited/" + bob.URI: []byte("x")}), false},
		{"no administrator", `{"mode":2,"type":"initial"}`, files{"members/" + ann.URI + ".crt": ann.AccountPEM, "devices/" + ann.Device + ".crt": ann.DevicePEM}, false},
	} {
		c := &commit.Commit{Name: "A", Device: ann.Device, Time: time.Now(), Message: []byte(tt.message)}
		sign(t, c, ann.DeviceKey)
		conv, err := rules.NewChecker(nil).First(c, c.Unsigned(), tree(tt.files))
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, rules.ErrInvalid) {
			t.Errorf("%s: %+v, %v", tt.name, conv, err)
		}
	}
}

// What members may do, and what they may not (swarm §2.4 to §2.7).
func TestNextCommit(t *testing.T) {
	ann, bob, eve, dan := swarmtest.New(t), swarmtest.New(t), swarmtest.New(t), swarmtest.New(t)
	admin, member, device := func(w *swarmtest.Identity) string { return "admins/" + w.URI + ".crt" }, func(w *swarmtest.Identity) string { return "members/" + w.URI + ".crt" }, func(w *swarmtest.Identity) string { return "devices/" + w.Device + ".crt" }
	invited := func(w *swarmtest.Identity) string { return "invited/" + w.URI }
	base := files{admin(ann): ann.AccountPEM, device(ann): ann.DevicePEM, member(bob): bob.AccountPEM, device(bob): bob.DevicePEM, invited(eve): empty}
	text, act := `{"body":"hi","type":"text/plain"}`, func(action, uri string) string {
		return `{"action":"` + action + `","type":"member","uri":"` + uri + `"}`
	}
	vote := func(verb, kind, target string, by *swarmtest.Identity) string {
		return "votes/" + verb + "/" + kind + "/" + target + "/" + by.URI
	}
	voteAbout := `{"type":"vote","uri":"` + bob.URI + `"}`
	voted := edited(base, files{vote("ban", "members", bob.URI, ann): empty})
	ban := files{vote("ban", "members", bob.URI, ann): nil, member(bob): nil, "banned/" + member(bob): bob.AccountPEM}
	banned := edited(voted, ban)
	unvoted := edited(banned, files{vote("unban", "members", bob.URI, ann): empty})
	two := edited(base, files{admin(dan): dan.AccountPEM, device(dan): dan.DevicePEM, "admins/" + strings.Repeat("1", 40) + ".crt": ann.AccountPEM})

	for _, tt := range []struct {
		name, message string
		by            *swarmtest.Identity
		old, files    files
		mode          string
		ok            bool
	}{
		{name: "text", message: text, by: bob, ok: true},
		{name: "text that adds a file", message: text, by: bob, files: edited(base, files{"x": empty})},
		{name: "text of who is invited", message: text, by: eve, files: edited(base, files{device(eve): eve.DevicePEM})},
		{name: "text of a stranger", message: text, by: dan, files: edited(base, files{device(dan): dan.DevicePEM})},
		{name: "text of who was banned", message: text, by: bob, old: banned, files: banned},

		{name: "add", message: act("add", dan.URI), by: bob, files: edited(base, files{invited(dan): empty}), ok: true},
		{name: "add, nothing happens", message: act("add", dan.URI), by: bob},
		{name: "add with words", message: act("add", dan.URI), by: bob, files: edited(base, files{invited(dan): []byte("x")})},
		{name: "add oneself", message: act("add", bob.URI), by: bob, files: edited(base, files{invited(bob): empty})},
		{name: "add another than is said", message: act("add", dan.URI), by: bob, files: edited(base, files{invited(dan): empty, invited(ann): empty})},
		{name: "add as a member", message: act("add", dan.URI), by: bob, files: edited(base, files{invited(dan): empty, member(dan): dan.AccountPEM})},
		{name: "add who is banned", message: act("add", bob.URI), by: ann, old: banned, files: edited(banned, files{invited(bob): empty})},
		{name: "add a third one of two", message: act("add", dan.URI), by: bob, mode: "0", files: edited(base, files{invited(dan): empty})},
		{name: "add a path", message: act("add", "../../x"), by: bob, files: edited(base, files{"invited/../../x": empty})},

		{name: "join", message: act("join", eve.URI), by: eve, files: edited(base, files{invited(eve): nil, member(eve): eve.AccountPEM, device(eve): eve.DevicePEM}), ok: true},
		{name: "join as admin", message: act("join", eve.URI), by: eve, files: edited(base, files{invited(eve): nil, admin(eve): eve.AccountPEM, device(eve): eve.DevicePEM})},
		{name: "join uninvited", message: act("join", dan.URI), by: dan, files: edited(base, files{member(dan): dan.AccountPEM, device(dan): dan.DevicePEM})},
		{name: "join for another", message: act("join", eve.URI), by: bob, files: edited(base, files{invited(eve): nil, member(eve): eve.AccountPEM})},
		{name: "join with another's certificate", message: act("join", eve.URI), by: eve, files: edited(base, files{invited(eve): nil, member(eve): dan.AccountPEM, device(eve): eve.DevicePEM})},
		{name: "join and take another's device", message: act("join", eve.URI), by: eve, files: edited(base, files{invited(eve): nil, member(eve): eve.AccountPEM, device(eve): eve.DevicePEM, device(bob): eve.DevicePEM})},

		{name: "leave", message: act("remove", bob.URI), by: bob, files: edited(base, files{member(bob): nil}), ok: true},
		{name: "leave with one's devices", message: act("remove", bob.URI), by: bob, files: edited(base, files{member(bob): nil, device(bob): nil}), ok: true},
		{name: "leave and stay", message: act("remove", bob.URI), by: bob},
		{name: "leave for another", message: act("remove", ann.URI), by: bob, files: edited(base, files{admin(ann): nil})},
		{name: "leave with another's device", message: act("remove", bob.URI), by: bob, files: edited(base, files{member(bob): nil, device(ann): nil})},

		{name: "vote", message: voteAbout, by: ann, files: voted, ok: true},
		{name: "vote of no admin", message: voteAbout, by: bob, files: edited(base, files{vote("ban", "admins", ann.URI, bob): empty})},
		{name: "vote in another's name", message: voteAbout, by: ann, files: edited(base, files{vote("ban", "members", bob.URI, bob): empty})},
		{name: "vote about oneself", message: voteAbout, by: ann, files: edited(base, files{vote("ban", "admins", ann.URI, ann): empty})},
		{name: "vote about nobody", message: voteAbout, by: ann, files: edited(base, files{vote("ban", "members", dan.URI, ann): empty})},
		{name: "vote with words", message: voteAbout, by: ann, files: edited(base, files{vote("ban", "members", bob.URI, ann): []byte("x")})},
		{name: "two votes", message: voteAbout, by: ann, files: edited(base, files{vote("ban", "members", bob.URI, ann): empty, vote("ban", "invited", eve.URI, ann): empty})},
		{name: "vote of another kind", message: voteAbout, by: ann, files: edited(base, files{vote("like", "members", bob.URI, ann): empty})},
		{name: "vote twice", message: voteAbout, by: ann, old: voted, files: voted, ok: true}, // nothing changes

		{name: "ban", message: act("ban", bob.URI), by: ann, old: voted, files: banned, ok: true},
		{name: "ban without a vote", message: act("ban", bob.URI), by: ann, files: edited(base, files{member(bob): nil, "banned/" + member(bob): bob.AccountPEM})},
		{name: "ban by no admin", message: act("ban", bob.URI), by: bob, old: voted, files: banned},
		{name: "ban, and nobody is", message: act("ban", bob.URI), by: ann, old: voted, files: edited(voted, files{vote("ban", "members", bob.URI, ann): nil})},
		{name: "ban another", message: act("ban", bob.URI), by: ann, old: voted, files: edited(banned, files{invited(eve): nil, "banned/invited/" + eve.URI: empty})},
		{name: "ban by one of three", message: act("ban", bob.URI), by: ann, old: edited(two, files{vote("ban", "members", bob.URI, ann): empty}), files: edited(two, files{member(bob): nil, "banned/" + member(bob): bob.AccountPEM})},
		{name: "unban", message: act("unban", bob.URI), by: ann, old: unvoted, files: edited(unvoted, files{vote("unban", "members", bob.URI, ann): nil, "banned/" + member(bob): nil, member(bob): bob.AccountPEM}), ok: true},

		{name: "profile", message: `{"type":"application/update-profile"}`, by: ann, files: edited(base, files{"profile.vcf": []byte("BEGIN:VCARD")}), ok: true},
		{name: "profile of no admin", message: `{"type":"application/update-profile"}`, by: bob, files: edited(base, files{"profile.vcf": []byte("BEGIN:VCARD")})},
		{name: "profile and more", message: `{"type":"application/update-profile"}`, by: ann, files: edited(base, files{"profile.vcf": []byte("x"), "x": empty})},

		{name: "edit", message: `{"body":"b","edit":"` + strings.Repeat("a", 40) + `","type":"application/edited-message"}`, by: bob, ok: true},
		{name: "edit of another's", message: `{"body":"b","edit":"` + strings.Repeat("b", 40) + `","type":"application/edited-message"}`, by: bob},
		{name: "edit of nothing", message: `{"body":"b","type":"application/edited-message"}`, by: bob},
		{name: "no JSON", message: `Merge commit`, by: bob},
		{name: "another device's key", message: text, by: bob, files: edited(base, files{device(bob): ann.DevicePEM})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.old == nil {
				tt.old = base
			}
			if tt.files == nil {
				tt.files = tt.old
			}
			conv := &rules.Conversation{Mode: "2", Creator: ann.URI}
			if tt.mode != "" {
				conv.Mode, conv.Other = tt.mode, bob.URI
			}
			c := &commit.Commit{Name: "A", Device: tt.by.Device, Time: time.Now(), Message: []byte(tt.message), Parents: []plumbing.Hash{{1}}}
			sign(t, c, tt.by.DeviceKey)
			past := func(id string) (string, string, bool) {
				switch id {
				case strings.Repeat("a", 40):
					return bob.URI, commit.TypeText, true
				case strings.Repeat("b", 40):
					return ann.URI, commit.TypeText, true
				}
				return "", "", false
			}
			user, _, err := rules.NewChecker(nil).Next(conv, c, c.Unsigned(), tree(tt.files), []*rules.Tree{tree(tt.old)}, past)
			if tt.ok && (err != nil || user != tt.by.URI) {
				t.Fatalf("%s, %v", user, err)
			}
			if !tt.ok && !errors.Is(err, rules.ErrInvalid) && !errors.Is(err, commit.ErrMalformed) {
				t.Fatalf("accepted, or another error: %v", err)
			}
		})
	}
}

// A merge takes each file from one of its sides: it cannot bring in what neither has.
func TestMergeCommit(t *testing.T) {
	ann, bob := swarmtest.New(t), swarmtest.New(t)
	base := files{"admins/" + ann.URI + ".crt": ann.AccountPEM, "devices/" + ann.Device + ".crt": ann.DevicePEM}
	left, right := edited(base, files{"invited/" + bob.URI: empty}), edited(base, files{"profile.vcf": []byte("x")})
	for name, x := range map[string]struct {
		files files
		ok    bool
	}{
		"both":               {edited(left, files{"profile.vcf": []byte("x")}), true},
		"one side":           {left, true},
		"what neither has":   {edited(left, files{"x": empty}), false},
		"another profile":    {edited(left, files{"profile.vcf": []byte("y")}), false},
		"the author is gone": {edited(left, files{"admins/" + ann.URI + ".crt": nil}), false},
	} {
		c := &commit.Commit{Name: "A", Device: ann.Device, Time: time.Now(), Message: []byte("Merge commit 'x'"), Parents: []plumbing.Hash{{1}, {2}}}
		sign(t, c, ann.DeviceKey)
		_, m, err := rules.NewChecker(nil).Next(&rules.Conversation{Mode: "2"}, c, c.Unsigned(), tree(x.files), []*rules.Tree{tree(left), tree(right)}, nil)
		if x.ok != (err == nil) || m != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
