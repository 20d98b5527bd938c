package swarm

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// Bounds of a post, in bytes.
const (
	maxBody = 8192
	maxName = 256 // 64 characters
	maxFrom = 64
	maxKey  = 128
)

// textMessage makes of a post the message to commit, or refuses it.
func textMessage(p *contract.ChatPost) (commit.Message, error) {
	body := strings.ReplaceAll(p.Body, "\r\n", "\n")
	switch {
	case strings.TrimSpace(body) == "":
		return nil, contract.ErrBadRequest.With("the message is empty")
	case len(body) > maxBody:
		return nil, contract.ErrBadRequest.With("the message has %d bytes; %d are allowed", len(body), maxBody)
	case !clean(body, "\n\t"):
		return nil, contract.ErrBadRequest.With("the message is not UTF-8 text, or has control characters other than new lines and tabs")
	case len(p.Name) > maxName || len(p.From) > maxFrom || len(p.Key) > maxKey:
		return nil, contract.ErrBadRequest.With("the name has at most %d bytes, the sender %d, the key %d", maxName, maxFrom, maxKey)
	case !clean(p.Name, "") || !clean(p.From, "") || !clean(p.Key, ""):
		return nil, contract.ErrBadRequest.With("name, sender and key are UTF-8 without control characters")
	case p.Reply != "" && !commit.IsID(p.Reply):
		return nil, contract.ErrBadRequest.With("reply_to is the id of a message: 40 hex digits")
	}
	m := commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: body}
	for k, v := range map[string]string{commit.KeyFrom: p.From, commit.KeyName: p.Name, commit.KeyOnce: p.Key, commit.KeyReply: p.Reply} {
		if v != "" {
			m[k] = v
		}
	}
	return m, nil
}

// clean reports whether s is UTF-8 without control characters other than allowed.
func clean(s, allowed string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) && !strings.ContainsRune(allowed, r) {
			return false
		}
	}
	return true
}

// chatMessage is a commit as the room sees it.
func chatMessage(room string, e *repo.Entry) contract.ChatMessage {
	m := e.Message
	return contract.ChatMessage{ID: e.ID, Parent: e.Parent, Room: room, From: m[commit.KeyFrom], Name: m[commit.KeyName],
		Type: m[commit.KeyType], Body: m[commit.KeyBody], Reply: m[commit.KeyReply], Time: e.Time}
}

// sent is how many bytes a commit is in a reply: JSON makes six of some characters.
func sent(room string, e *repo.Entry) int {
	b, err := json.Marshal(chatMessage(room, e))
	if err != nil {
		return pageBytes // nothing in it can fail
	}
	return len(b) + 1
}
