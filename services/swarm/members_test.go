package swarm

import (
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

const (
	someConv   = "0123456789012345678901234567890123456789"
	someCommit = "1123456789012345678901234567890123456789"
)

var someDevice = strings.Repeat("ab", 32)

func TestAnnouncements(t *testing.T) {
	want := announcement{someConv, someCommit, someDevice}
	for _, text := range []string{want.text(), "{\n\t\"commit\" : \"" + someCommit + "\",\n\t\"deviceId\" : \"" + someDevice + "\",\n\t\"id\" : \"" + someConv + "\"\n}"} {
		if got, err := parseAnnouncement(text); err != nil || *got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "{}", "[]", `{"id":"../../x","commit":"` + someCommit + `","deviceId":"` + someDevice + `"}`, `{"id":"` + someConv + `","commit":"x","deviceId":"` + someDevice + `"}`,
		`{"id":"` + someConv + `","commit":"` + someCommit + `","deviceId":"x"}`, `{"id":1}`} {
		if got, err := parseAnnouncement(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestInvitations(t *testing.T) {
	for text, want := range map[string]invitation{
		`{"conversationId":"` + someConv + `","metadatas":{"mode":"2","title":"Chess"}}`: {someConv, "2", "Chess"},
		`{"conversationId":"` + someConv + `","metadatas":{"mode":2}}`:                   {someConv, "2", ""},
		`{"conversationId":"` + someConv + `"}`:                                          {someConv, "", ""},
		`{"conversationId":"` + someConv + `","metadatas":{"title":"a\u0007b"}}`:         {someConv, "", ""},
	} {
		if got, err := parseInvitation(text); err != nil || *got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "{}", `{"conversationId":"../../../x"}`, `{"conversationId":"` + strings.ToUpper("abcdef"+someConv[6:]) + `"}`, `{"conversationId":"` + someConv + `","metadatas":[]}`} {
		if got, err := parseInvitation(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

// What a peer says of a file is never a path, and its sizes are numbers.
func TestFilesOfPosts(t *testing.T) {
	msg := func(name, size, tid string) *repo.Post {
		return &repo.Post{Entry: repo.Entry{ID: someCommit, Message: commit.Message{commit.KeyType: commit.TypeFile, commit.KeyFile: name, commit.KeySize: size, commit.KeyTID: tid, commit.KeySHA3: strings.Repeat("0", 128)}}}
	}
	for name, want := range map[string]string{"a.png": "a.png", "../../x": "x", `C:\x.txt`: "x.txt", "": "file", "..": "file", "/": "file", "a\x00b\x1b": "ab", strings.Repeat("é", 200) + ".mkv": strings.Repeat("é", 125) + ".mkv"} {
		f := fileOf(someConv, msg(name, "5", "7"))
		if f == nil || f.Name != want || f.Size != 5 || f.FileRef != (contract.FileRef{Conversation: someConv, Commit: someCommit, TID: "7"}) {
			t.Errorf("%q is %+v", name, f)
		}
	}
	for _, bad := range []*repo.Post{msg("a", "-1", "7"), msg("a", "1e9", "7"), msg("a", "", "7"), msg("a", "99999999999999999999", "7"), msg("a", "5", ""), msg("a", "5", "-7"), msg("a", "5", "../x")} {
		if f := fileOf(someConv, bad); f != nil {
			t.Errorf("%v is %+v", bad.Message, f)
		}
	}
}

func FuzzAnnouncement(f *testing.F) {
	f.Add((&announcement{someConv, someCommit, someDevice}).text())
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAnnouncement(text)
		if err != nil {
			return
		}
		if again, err := parseAnnouncement(a.text()); err != nil || *again != *a {
			t.Errorf("%+v comes back as %+v, %v", a, again, err)
		}
	})
}

func FuzzInvitation(f *testing.F) {
	f.Add(`{"conversationId":"` + someConv + `","metadatas":{"mode":"2","title":"Chess"}}`)
	f.Add(`{"conversationId":"` + someConv + `","metadatas":{"mode":2}}`)
	f.Fuzz(func(t *testing.T, text string) {
		in, err := parseInvitation(text)
		if err == nil && (!commit.IsID(in.Conversation) || len(in.Title) > maxTitle) {
			t.Errorf("%+v", in)
		}
	})
}

func FuzzFileName(f *testing.F) {
	f.Add("../../x")
	f.Add("a.png")
	f.Fuzz(func(t *testing.T, s string) {
		if n := fileName(s); n == "" || n == "." || n == ".." || strings.ContainsAny(n, "/\\\x00") || len(n) > 255 {
			t.Errorf("%q is %q", s, n)
		}
	})
}
