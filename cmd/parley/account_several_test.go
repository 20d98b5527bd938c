package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

func severalAccounts(t *testing.T, n *node) {
	read := func(v any, args ...string) {
		t.Helper()
		r := ends(t, n.env, "", exitOK, "", append(args, "--json")...)
		if err := json.Unmarshal([]byte(r.out), v); err != nil {
			t.Fatalf("%v: %v in %s", args, err, r.out)
		}
	}
	var list struct{ Accounts []contract.Account }
	read(&list, "account", "list")
	if len(list.Accounts) != 1 {
		t.Fatalf("%+v", list)
	}
	main := list.Accounts[0]
	var second contract.Account
	read(&second, "account", "create", "--alias", "Team Süd")
	var imported contract.Account
	read(&imported, "account", "import", stockArchive(t, "archive_password_contacts_crl.gz"), "--password-file", passwordFile(t, stockPassword), "--beside")
	if imported.ID != stockAccount || imported.Archive != "password" {
		t.Errorf("%+v", imported)
	}
	ends(t, n.env, "", exitRefused, "--beside", "account", "import", stockArchive(t, "archive_plain.gz"))
	whole, err := os.ReadFile(stockArchive(t, "archive_plain.gz"))
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.gz")
	for size, words := range map[int]string{len(whole) / 2: "it was cut short, or is none", 5: cut} {
		if err := os.WriteFile(cut, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if r := ends(t, n.env, "", exitUsage, words, "account", "import", cut, "--beside"); !strings.Contains(r.err, cut) {
			t.Errorf("which file is not said: %s", r.err)
		}
	}
	ends(t, n.env, "", exitRefused, "already", "account", "import", stockArchive(t, "archive_password_contacts_crl.gz"), "--password-file",
		passwordFile(t, stockPassword), "--beside")
	read(&list, "account", "list")
	if len(list.Accounts) != 3 || list.Accounts[0].ID != main.ID || list.Accounts[1].ID != second.ID || list.Accounts[2].ID != stockAccount {
		t.Errorf("%+v", list)
	}

	// By its name or its id a command is for one of them.
	var shown contract.Account
	read(&shown, "account", "show", "--account", "Team Süd")
	if shown.ID != second.ID || shown.ID == main.ID {
		t.Errorf("%+v", shown)
	}
	read(&shown, "account", "set", "--alias", "Süd", "--account", "jami:"+strings.ToUpper(second.ID))
	if shown.ID != second.ID || shown.Alias != "Süd" {
		t.Errorf("%+v", shown)
	}
	ends(t, n.env, "", exitNotFound, "account list", "account", "show", "--account", "Team Süd")
	ends(t, n.env, "", exitOK, "contacts", "account", "contacts", "--account", "Süd")

	// A room of another account is signed by that.
	ends(t, n.env, "", exitNotFound, "account", "room", "create", "sued", "--account", "nobody")
	var room contract.Room
	read(&room, "room", "create", "sued", "--account", "Süd")
	if room.Account != second.ID {
		t.Errorf("%+v", room)
	}
	for deadline := time.Now().Add(20 * time.Second); room.Conversation == ""; {
		if time.Now().After(deadline) {
			t.Fatal("the room gets no conversation")
		}
		read(&room, "room", "show", "sued")
	}
	found, err := filepath.Glob(filepath.Join(n.data, "swarm", "*", "conversations", room.Conversation))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	tree, err := exec.Command("git", "-C", found[0], "-c", "safe.directory=*", "ls-tree", "-r", "--name-only", "HEAD").CombinedOutput()
	if err != nil || !strings.Contains(string(tree), "admins/"+second.ID) || strings.Contains(string(tree), main.ID) {
		t.Errorf("%v: %s", err, tree)
	}
	ends(t, n.env, "", exitOK, "", "room", "rm", "sued")

	ends(t, n.env, "", exitRefused, "main account", "account", "retire", main.ID)
	for _, id := range []string{"Süd", stockAccount} {
		ends(t, n.env, "", exitOK, "replaced-", "account", "retire", id)
	}
	if read(&list, "account", "list"); len(list.Accounts) != 1 {
		t.Errorf("%+v", list)
	}
}
