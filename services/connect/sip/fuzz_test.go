package sip

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"
)

// fakeTx is a transaction that keeps what it is answered.
type fakeTx struct {
	mu    sync.Mutex
	final []*sip.Response
	onOK  func()
	ends  sync.WaitGroup
	over  chan struct{}
	once  sync.Once
}

func (tx *fakeTx) Respond(res *sip.Response) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if !res.IsProvisional() {
		tx.final = append(tx.final, res)
	}
	if res.IsSuccess() && tx.onOK != nil {
		tx.ends.Go(tx.onOK)
	}
	return nil
}

func (tx *fakeTx) Terminate()                         { tx.once.Do(func() { close(tx.over) }) }
func (tx *fakeTx) OnTerminate(sip.FnTxTerminate) bool { return true }
func (tx *fakeTx) Done() <-chan struct{}              { return tx.over }
func (tx *fakeTx) Err() error                         { return nil }
func (tx *fakeTx) Acks() <-chan *sip.Request          { return nil }
func (tx *fakeTx) OnCancel(sip.FnTxCancel) bool       { return true }

// easyRooms lets everybody in and keeps nothing.
type easyRooms struct{ *rooms }

func (easyRooms) Enter(context.Context, Call) (string, error)         { return offer, nil }
func (easyRooms) Negotiate(context.Context, Change) (string, error)   { return offer, nil }
func (easyRooms) Confirm(context.Context, string, string) error       { return nil }
func (easyRooms) Leave(context.Context, string, string, string) error { return nil }

// message is a request as a phone sends it; a header of its own replaces the usual one.
func message(line, body string, headers ...string) []byte {
	method, _, _ := strings.Cut(line, " ")
	m := line + " SIP/2.0\r\n"
	own := "\r\n" + strings.ToLower(strings.Join(headers, "\r\n")) + "\r\n"
	for _, h := range []string{"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport", "Max-Forwards: 70", "From: \"A\" <sip:a@192.0.2.1>;tag=r", "To: <sip:main@x>",
		"Call-ID: c", "CSeq: 5 " + method, "Contact: <sip:a@192.0.2.1>"} {
		name, _, _ := strings.Cut(h, ":")
		if !strings.Contains(own, "\r\n"+strings.ToLower(name)+":") {
			m += h + "\r\n"
		}
	}
	for _, h := range headers {
		m += h + "\r\n"
	}
	return []byte(m + "\r\n" + body)
}

func FuzzRequest(f *testing.F) {
	const inside = "To: <sip:main@x>;tag=l"
	const isSDP = "Content-Type: application/sdp"
	for _, m := range [][]byte{
		message("INVITE sip:main@x", offer, isSDP),
		message("INVITE sip:main@x", ""),
		message("INVITE sip:secret@x", offer, isSDP),
		message("INVITE sip:secret@x", offer, isSDP, `Authorization: Digest username="secret",realm="parley",nonce="AAAA",uri="sip:secret@x",response="0",algorithm=MD5`),
		message("INVITE sip:nowhere@x", offer, isSDP),
		message("INVITE sip:main@x", "--b\r\nContent-Type: application/sdp\r\n\r\n"+offer+"\r\n--b--\r\n", "Content-Type: multipart/mixed;boundary=b"),
		message("INVITE sip:main@x", "--", "Content-Type: multipart/mixed"),
		message("INVITE sip:main@x", offer, isSDP, "Record-Route: <sip:p;lr>", "Record-Route: <sip:q;lr>"),
		message("INVITE sip:main@x", offer, isSDP, "Require: 100rel, foo"),
		message("INVITE sip:main@x", offer, inside, isSDP),
		message("INVITE sip:main@x", "", inside),
		message("UPDATE sip:main@x", offer, inside, isSDP),
		message("UPDATE sip:main@x", "", inside, "Session-Expires: 90"),
		message("ACK sip:main@x", offer, inside, isSDP),
		message("BYE sip:main@x", "", inside),
		message("BYE sip:main@x", "", inside, "CSeq: 1 BYE"),
		message("BYE sip:main@x", "", "To: <sip:main@x>;tag=other"),
		message("CANCEL sip:main@x", ""),
		message("OPTIONS sip:main@x", ""),
		message("OPTIONS sip:x", "", "Max-Forwards: 0"),
		message("REFER sip:main@x", "", inside, "Refer-To: <sip:b@x>"),
		message("REGISTER sip:x", "", "Expires: 60"),
		message("INFO sip:main@x", "5", inside, "Content-Type: application/dtmf-relay"),
		message("INVITE tel:+1234", offer, isSDP),
		message("INVITE sip:main@x", offer, isSDP, "Contact: *"),
		message("INVITE sip:main@x", offer, isSDP, `From: "\"\\<>" <sip:%00@[::1]:99999>;tag=r;tag=q`),
		message("INVITE sip:main@x", offer, isSDP, "CSeq: 4294967295 BYE"),
		message("INVITE sip:main@x", offer, isSDP, "Content-Encoding: gzip"),
		message("INVITE sip:main@x", offer, isSDP, "Call-ID: "),
		message("INVITE sip:main@x", offer, isSDP, "Via: SIP/2.0/UDP 192.0.2.1;branch=", "From: <sip:a>"),
		[]byte("INVITE sip:main@x SIP/2.0\r\n\r\n"),
		[]byte("INVITE  SIP/2.0\r\nVia: x\r\n\r\n"),
	} {
		f.Add(m)
	}
	s, err := New(Config{Dir: f.TempDir(), Rooms: easyRooms{newRooms()}, Code: code, Log: zap.NewNop(), Version: "test"})
	if err != nil {
		f.Fatal(err)
	}
	s.invites = newBuckets(1e9, 1e9, time.Now)
	s.wrong = newBuckets(1e9, 1e9, time.Now)
	handlers := s.handlers()
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := sip.ParseMessage(b)
		if err != nil {
			return
		}
		req, ok := m.(*sip.Request)
		if !ok {
			if res, ok := m.(*sip.Response); ok {
				s.onStray(res)
			}
			return
		}
		if _, err := sip.ServerTxKeyMake(req); err != nil {
			return // the transaction layer answers
		}
		_, echo := sip.ParseMessage([]byte(req.String())) // an answer repeats some of it
		req.SetTransport("UDP")
		req.SetSource("192.0.2.1:5060")
		d := &dialog{acked: make(chan struct{}), record: record{ID: NewID("sip"), Room: "main", CallID: "c", LocalTag: "l", RemoteTag: "r", RemoteSeq: 1,
			Transport: "UDP", Source: "192.0.2.1:5060", Target: "sip:a@192.0.2.1", Local: "<sip:main@x>;tag=l", Remote: "<sip:a@x>;tag=r"}}
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
			back, err := sip.ParseMessage([]byte(res.String()))
			if err != nil && echo != nil {
				continue
			}
			if err != nil {
				t.Fatalf("%v in the answer %q to %q", err, res.String(), b)
			}
			if r, ok := back.(*sip.Response); !ok || r.StatusCode != res.StatusCode || len(r.Headers()) != len(res.Headers()) {
				t.Fatalf("the answer %q to %q reads as another", res.String(), b)
			}
		}
		if n := s.dialogs.len(); n != 0 {
			t.Fatalf("%d dialogs left", n)
		}
	})
}
