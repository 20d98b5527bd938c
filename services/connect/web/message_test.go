package web

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"type":"join","data":{"room":"main","name":"Ada","pin":"1234","offer":"v=0\r\n","muted":true}}`,
		`{"id":2,"type":"resume","data":{"session":"a.b"}}`,
		`{"id":3,"type":"negotiate","data":{"sdp":"v=0","answer":true}}`,
		`{"id":4,"type":"mute","data":{"muted":true}}`, `{"id":5,"type":"hand","data":{"raised":true}}`,
		`{"id":6,"type":"role","data":{"participant":"p","role":"listener"}}`, `{"id":7,"type":"kick","data":{"participant":"p"}}`,
		`{"id":8,"type":"lock","data":{"locked":true}}`, `{"id":9,"type":"chat","data":{"body":"hi","key":"k"}}`,
		`{"id":10,"type":"history","data":{"limit":50}}`, `{"type":"ping"}`, `{"type":"get","data":null}`, `[]`, `{"type":`, "\x00", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, typ, req, ref := decode(b)
		if (req == nil) == (ref == nil) {
			t.Fatalf("request %v and refusal %v", req, ref)
		}
		if ref != nil {
			if ref.Code != "bad_request" || ref.Message == "" {
				t.Fatalf("refused with %+v", ref)
			}
			return
		}
		// What was let through is let through again as it was written.
		data, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := json.Marshal(message{ID: id, Type: typ, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		id2, typ2, req2, ref2 := decode(whole)
		again, err := json.Marshal(req2)
		if err != nil || ref2 != nil || id2 != id || typ2 != typ || string(again) != string(data) {
			t.Fatalf("%s became %s (%v %v)", data, again, ref2, err)
		}
		if j, ok := req.(*joinRequest); ok && (!validRoom(j.Room) || j.Name == "" || utf8.RuneCountInString(j.Name) > maxName || strings.ContainsAny(j.PIN+j.Token, "\r\n")) {
			t.Fatalf("let through %+v", j)
		}
	})
}

func FuzzSession(f *testing.F) {
	s := sessions{[]byte(strings.Repeat("k", 32))}
	now := time.Unix(1_800_000_000, 0)
	f.Add(s.issue(session{"main", "ada"}, now))
	f.Add("a.b")
	f.Add(strings.Repeat("A", 300))
	f.Fuzz(func(t *testing.T, token string) {
		v, ok := s.open(token, now)
		if !ok {
			return
		}
		if s.issue(v, now) != token { // only what was issued at that very time opens here
			t.Fatalf("%q opened as %+v and was not issued", token, v)
		}
	})
}

func TestSessionTokens(t *testing.T) {
	s := sessions{[]byte(strings.Repeat("k", 32))}
	now := time.Now()
	v := session{"main", newID()}
	token := s.issue(v, now)
	if got, ok := s.open(token, now.Add(sessionLife-time.Minute)); !ok || got != v {
		t.Fatalf("opened as %+v %v", got, ok)
	}
	if _, ok := s.open(token, now.Add(sessionLife+time.Second)); ok {
		t.Error("an expired token was taken")
	}
	if _, ok := (sessions{[]byte(strings.Repeat("x", 32))}).open(token, now); ok {
		t.Error("another node's token was taken")
	}
	for i := range token { // every single character matters
		c := byte('A')
		if token[i] == 'A' {
			c = 'B'
		}
		if got, ok := s.open(token[:i]+string(c)+token[i+1:], now); ok && got != v {
			t.Errorf("changed at %d it opened as %+v", i, got)
		}
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"  Ada   Lovelace ": "Ada Lovelace", "a\x00b\nc": "ab c", "\u202eevil": "evil", "\xff\xfe": "", "é": "é",
		strings.Repeat("ü", 80): strings.Repeat("ü", maxName),
	} {
		if got := cleanName(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
