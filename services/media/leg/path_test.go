package leg

import (
	"testing"

	"github.com/pion/webrtc/v3"
)

func TestPathOfAJamiPeer(t *testing.T) {
	n := newNode(t)
	a := jamiJoins(t, n, "a")
	eventually(t, "connected", func() bool { a.speaks(1); return leg(t, n, "a").Info().Connected })
	want := Path{Local: a.to[0], LocalType: "host", Remote: addrOf(a.conns[0]), RemoteType: "host", RTCP: addrOf(a.conns[1])}
	if got := leg(t, n, "a").Path(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	b := newJamiPeer(t)
	o, err := n.Open(Request{ID: "b", Room: "main", Epoch: 1, Jami: true, Offer: b.offer(true, b.keys)})
	if err != nil || o.SDP == "" {
		t.Fatal(err)
	}
	if got := leg(t, n, "b").Path(); got.Remote.IsValid() || got.RemoteType != "" || !got.Local.IsValid() {
		t.Errorf("before a check: %+v", got)
	}
}

func TestPathOfABrowser(t *testing.T) {
	n := newNode(t)
	b := newBrowser(t, webrtc.RTPTransceiverDirectionSendrecv, false)
	b.join(t, n, "b")
	b.speak(t)
	eventually(t, "connected", n.saw("b connected"))
	l := leg(t, n, "b")
	p := l.Path()
	if p.LocalType != "host" || !p.Local.IsValid() || p.Remote.String() != l.Info().Remote || p.RemoteType != "host" && p.RemoteType != "prflx" {
		t.Errorf("%+v", p)
	}
	if p.DTLS != "DTLS 1.2" || p.Suite != "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" {
		t.Errorf("%+v", p)
	}
	n.start() // the next process tells the same
	if again := leg(t, n, "b").Path(); again.Suite != p.Suite || again.Remote != p.Remote {
		t.Errorf("after a restart: %+v", again)
	}
}

func TestPathOfAPhone(t *testing.T) {
	n := newNode(t)
	told, behind := newPhone(t, false), newPhone(t, false)
	call(t, n, told, "told", "127.0.0.1", addrOf(told.conn).Port(), "127.0.0.1")
	call(t, n, behind, "behind", "10.1.2.3", 4000, "127.0.0.1")
	for id, want := range map[string]string{"told": "sdp", "behind": "latched"} {
		eventually(t, id+" is connected", n.saw(id+" connected"))
		if p := leg(t, n, id).Path(); p.RemoteType != want || p.LocalType != "sdp" || p.DTLS != "" || p.Remote.String() != leg(t, n, id).Info().Remote {
			t.Errorf("%s: %+v", id, p)
		}
	}
}
