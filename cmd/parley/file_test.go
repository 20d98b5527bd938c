package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

func TestFileLinks(t *testing.T) {
	x := &contract.FileOffered{FileRef: contract.FileRef{Conversation: strings.Repeat("c0", 20), Commit: strings.Repeat("ab", 20), TID: "7"}, Name: "Grüße & mehr?.txt", Size: 5, SHA3: strings.Repeat("0f", 64)}
	q, err := parseFileLink(fileLink("me", x))
	if err != nil || q.FileRef != x.FileRef || q.From != "me" || q.Name != x.Name || q.Size != x.Size || q.SHA3 != x.SHA3 {
		t.Errorf("%+v, %v", q, err)
	}
	for _, s := range []string{"", "http://x/a_b?from=x&size=1", "data-transfer://c/ab?from=x&size=1", "data-transfer://c/a_b?size=1", "data-transfer://c/a_b?from=x", "data-transfer://c/a_b?from=x&size=x",
		"data-transfer://c/a_b?%zz", "data-transfer://[/a_b"} {
		if q, err := parseFileLink(s); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%q: %+v, %v", s, q, err)
		}
	}
}

func FuzzFileLink(f *testing.F) {
	f.Add("data-transfer://c0/ab_7?from=x&name=a.txt&sha3=0f&size=5")
	f.Fuzz(func(t *testing.T, s string) {
		q, err := parseFileLink(s)
		if err != nil {
			return
		}
		back, err := parseFileLink(fileLink(q.From, &contract.FileOffered{FileRef: q.FileRef, Name: q.Name, Size: q.Size, SHA3: q.SHA3}))
		if err == nil && (back.From != q.From || back.Name != q.Name || back.Size != q.Size || back.SHA3 != q.SHA3) {
			t.Errorf("%q is %+v, then %+v", s, q, back)
		}
	})
}

// What the command line says of files, on a node that reaches nobody.
func TestFiles(t *testing.T) {
	n := newTrial(t).up(t)
	n.joinable(t)
	own, peer := n.account(t).ID, strings.Repeat("1", 40)
	path := filepath.Join(t.TempDir(), "film.mkv")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	var sent struct {
		contract.FileOffered
		Link string
	}
	if err := json.Unmarshal([]byte(ends(t, n.env, "", exitOK, "", "file", "send", "jami:"+peer, path, "--json").out), &sent); err != nil {
		t.Fatal(err)
	}
	if sent.Size != 10 || sent.Name != "film.mkv" || len(sent.To) != 1 || sent.To[0] != peer || !strings.Contains(sent.Link, "from="+own) {
		t.Errorf("%+v", sent)
	}
	ends(t, n.env, "", exitOK, sent.Link, "file", "list")
	ends(t, n.env, "", exitUsage, "40 hex digits", "file", "send", "bob", path)
	ends(t, n.env, "", exitUsage, "no link", "file", "get", "film.mkv")
	ends(t, n.env, "", exitUsage, "SHA3", "file", "get", strings.Replace(sent.Link, sent.SHA3, "00", 1))
	ends(t, n.env, "", exitUsage, "at most", "file", "get", strings.Replace(sent.Link, "size=10", "size=1073741825", 1))
	if entries, err := os.ReadDir(filepath.Join(n.data, "connect", "files", "out")); err != nil || len(entries) != 1 {
		t.Errorf("%d files are in the node's data, %v", len(entries), err)
	}
	ends(t, n.env, "", exitOK, "not offered", "file", "remove", sent.Link)
	ends(t, n.env, "", exitNotFound, "no such file", "file", "remove", sent.Link)
	ends(t, n.env, "", exitOK, "no files", "file", "list")
	ends(t, n.env, "", exitNotFound, "no such file", "file", "cancel", "x")
}
