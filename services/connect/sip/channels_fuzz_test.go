package sip

import (
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
)

// FuzzJamiRequest: whatever comes on a channel gets one answer that a stock peer can read, and
// leaves no call.
func FuzzJamiRequest(f *testing.F) {
	peer := channel.Peer{Account: jami.ID{0xaa}, DeviceLong: jami.LongID{0xdd}.String()}
	const isSDP = "Content-Type: application/sdp"
	from, inside := "From: \"A\" <sip:"+peer.Account.String()+"@ring.dht>;tag=r", "To: <sips:x@127.0.0.1:4225;transport=tls>;tag=l"
	for _, m := range [][]byte{
		message("INVITE sips:127.0.0.1:4225;transport=tls", offer, from, isSDP),
		message("INVITE sips:127.0.0.1:4225;transport=tls", offer, isSDP),
		message("INVITE sips:127.0.0.1:4225;transport=tls", "", from),
		message("INVITE sips:127.0.0.1:4225;transport=tls", offer, from, isSDP, "To: <sips:conv/acct/device/conf@127.0.0.1:4225>"),
		message("INVITE sips:127.0.0.1:4225;transport=tls", offer, from, inside, isSDP),
		message("INFO sips:127.0.0.1:4225", "<mute_state=1/>", from, inside, "Content-Type: application/media_control+xml"),
		message("MESSAGE sips:127.0.0.1:4225", "{}", from, inside, "Content-Type: application/confOrder+json"),
		message("MESSAGE sips:127.0.0.1:4225", "hello", from, "Content-Type: text/plain", "Message-ID: 00000000000004d2"),
		message("BYE sips:127.0.0.1:4225", "", from, inside),
		message("OPTIONS sips:127.0.0.1:4225", "", from),
		message("SUBSCRIBE sips:127.0.0.1:4225", "", from),
	} {
		f.Add(m)
	}
	cs := &callers{heard: make(chan string, 1024), entered: make(chan string, 1024)}
	s, err := New(Config{Dir: f.TempDir(), Rooms: easyRooms{newRooms()}, Callers: cs, Code: code, Log: zap.NewNop(), Version: "test"})
	if err != nil {
		f.Fatal(err)
	}
	s.invites = newBuckets(1e9, 1e9, time.Now)
	near, _ := channeltest.Pipe("sip", peer)
	if err := s.Accept(jami.ID{1}, near); err != nil {
		f.Fatal(err)
	}
	source := (<-s.channels.new).RemoteAddr().String()
	handlers := s.handlers()
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := sip.ParseMessage(b)
		req, ok := m.(*sip.Request)
		if err != nil || !ok {
			return
		}
		if _, err := sip.ServerTxKeyMake(req); err != nil {
			return // the transaction layer answers
		}
		_, echo := sip.ParseMessage([]byte(req.String())) // an answer repeats some of it
		req.SetTransport("TLS")
		req.SetSource(source)
		d := &dialog{acked: make(chan struct{}), record: record{ID: NewID("jami"), Room: "main", CallID: "c", LocalTag: "l", RemoteTag: "r", RemoteSeq: 1, Device: peer.DeviceLong,
			Transport: "TLS", Source: source, Target: "sips:a@192.0.2.1", Local: "<sip:main@x>;tag=l", Remote: "<sip:a@x>;tag=r"}}
		d.confirm()
		if err := s.dialogs.add(d); err != nil {
			t.Fatal(err)
		}
		hangUp := func() { // in place of the ACK, or of 32 s
			for _, d := range s.dialogs.all() {
				s.end(d, "left")
			}
		}
		tx := &fakeTx{over: make(chan struct{}), onOK: hangUp}
		h := handlers[req.Method]
		if h == nil {
			h = s.onUnknown
		}
		h(req, tx)
		tx.ends.Wait()
		hangUp()
		for len(cs.heard)+len(cs.entered) > 0 {
			select {
			case <-cs.heard:
			case <-cs.entered:
			}
		}
		tx.mu.Lock()
		defer tx.mu.Unlock()
		want := 1
		if req.Method == sip.ACK {
			want = 0
		}
		if len(tx.final) != want {
			t.Fatalf("%d answers to %q", len(tx.final), b)
		}
		for _, res := range tx.final {
			if back, err := sip.ParseMessage([]byte(res.String())); echo == nil && (err != nil || len(back.(*sip.Response).Headers()) != len(res.Headers())) {
				t.Fatalf("the answer %q to %q does not read as it is: %v", res.String(), b, err)
			}
		}
		if n := s.dialogs.len(); n != 0 {
			t.Fatalf("%d dialogs left", n)
		}
	})
}
