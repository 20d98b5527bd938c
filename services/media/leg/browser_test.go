package leg

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v3"
	"github.com/pion/webrtc/v3/pkg/media"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/sdp"
)

// browser is pion/webrtc in the place of one.
type browser struct {
	pc    *webrtc.PeerConnection
	track *webrtc.TrackLocalStaticSample
	heard atomic.Int64
	last  atomic.Uint32 // sequence number
	lost  atomic.Bool   // ICE told of a break
}

func newBrowser(t *testing.T, dir webrtc.RTPTransceiverDirection, extra bool) *browser {
	t.Helper()
	var se webrtc.SettingEngine
	se.SetIncludeLoopbackCandidate(true)
	se.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	var me webrtc.MediaEngine
	if err := me.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	if err := me.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: sdp.LevelURI}, webrtc.RTPCodecTypeAudio); err != nil {
		t.Fatal(err)
	}
	api := webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(&me), webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{pc: pc}
	t.Cleanup(func() {
		if err := pc.Close(); err != nil {
			t.Logf("close: %v", err)
		}
	})
	if extra {
		if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo); err != nil {
			t.Fatal(err)
		}
		if _, err := pc.CreateDataChannel("x", nil); err != nil {
			t.Fatal(err)
		}
	}
	if dir != webrtc.RTPTransceiverDirectionRecvonly {
		b.track, err = webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "a", "s")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = pc.AddTransceiverFromTrack(b.track, webrtc.RTPTransceiverInit{Direction: dir}); err != nil {
			t.Fatal(err)
		}
	} else if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, webrtc.RTPTransceiverInit{Direction: dir}); err != nil {
		t.Fatal(err)
	}
	pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			b.heard.Add(1)
			b.last.Store(uint32(p.SequenceNumber))
		}
	})
	pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		if s == webrtc.ICEConnectionStateDisconnected || s == webrtc.ICEConnectionStateFailed {
			b.lost.Store(true)
		}
	})
	return b
}

func (b *browser) offer(t *testing.T, o *webrtc.OfferOptions) string {
	t.Helper()
	offer, err := b.pc.CreateOffer(o)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(b.pc)
	if err := b.pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	return b.pc.LocalDescription().SDP
}

func (b *browser) answer(t *testing.T, text string) {
	t.Helper()
	if err := b.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: text}); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
}

func (b *browser) join(t *testing.T, n *node, id string) Opened {
	t.Helper()
	o, err := n.Open(Request{ID: id, Room: "main", WebRTC: true, Offer: b.offer(t, nil), Remote: netip.MustParseAddr("127.0.0.1"), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	b.answer(t, o.SDP)
	return o
}

// speak sends noise until the test ends.
func (b *browser) speak(t *testing.T) {
	enc, err := codec.NewEncoder(codec.Opus)
	if err != nil {
		t.Fatal(err)
	}
	var pcm [codec.FrameSamples]float32
	for i := range pcm {
		pcm[i] = float32(i%97)/97*0.6 - 0.3
	}
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var buf [codec.MaxPayload]byte
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			n, err := enc.Encode(buf[:], pcm[:])
			if err == nil {
				err = b.track.WriteSample(media.Sample{Data: buf[:n], Duration: 20 * time.Millisecond})
			}
			if err != nil {
				return // the connection was closed
			}
		}
	}()
}

func TestBrowsersHearEachOther(t *testing.T) {
	n := newNode(t)
	a := newBrowser(t, webrtc.RTPTransceiverDirectionSendrecv, true)
	b := newBrowser(t, webrtc.RTPTransceiverDirectionRecvonly, false)
	oa := a.join(t, n, "a")
	ob := b.join(t, n, "b")
	if strings.Count(oa.SDP, "\r\nm=") != 3 || !strings.Contains(oa.SDP, "m=video 0 ") || !strings.Contains(oa.SDP, "m=application 0 ") {
		t.Errorf("answer to audio, video and data:\n%s", oa.SDP)
	}
	if !strings.Contains(ob.SDP, "a=sendonly") {
		t.Errorf("answer to recvonly:\n%s", ob.SDP)
	}
	a.speak(t)
	eventually(t, "b hears a", func() bool { return b.heard.Load() > 20 })
	eventually(t, "connected", n.saw("b connected"))
	l, _ := n.Leg("a")
	if i := l.Info(); i.Cipher != "AEAD_AES_128_GCM" || i.Codec != "opus" || i.Received == 0 {
		t.Errorf("info %+v", i)
	}

	// ICE restart: new credentials, the same keys; sound goes on.
	o, err := n.Negotiate("b", 0, b.offer(t, &webrtc.OfferOptions{ICERestart: true}), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	b.answer(t, o.SDP)
	heard := b.heard.Load()
	eventually(t, "b hears after an ICE restart", func() bool { return b.heard.Load() > heard+30 })
	if o.SDP == ob.SDP {
		t.Error("ICE restart was answered with the old credentials")
	}
}

// TestBrowserSurvives: the process dies and another takes over; the browser hears
// a gap and needs no signalling.
func TestBrowserSurvives(t *testing.T) {
	n := newNode(t)
	a := newBrowser(t, webrtc.RTPTransceiverDirectionSendrecv, false)
	b := newBrowser(t, webrtc.RTPTransceiverDirectionSendrecv, false)
	a.join(t, n, "a")
	b.join(t, n, "b")
	a.speak(t)
	eventually(t, "b hears a", func() bool { return b.heard.Load() > 20 })
	eventually(t, "saved", func() bool {
		n.dirtyMu.Lock()
		defer n.dirtyMu.Unlock()
		return len(n.dirties) == 0
	})
	n.Abandon()
	n.start()
	heard := b.heard.Load()
	began := time.Now()
	eventually(t, "b hears again", func() bool { return b.heard.Load() > heard+20 })
	t.Logf("20 packets after %s", time.Since(began))
	if a.lost.Load() || b.lost.Load() {
		t.Error("ICE noticed")
	}
}

// TestWrongCertificate: a peer that is not the one of the SDP gets no keys.
func TestWrongCertificate(t *testing.T) {
	n := newNode(t)
	b := newBrowser(t, webrtc.RTPTransceiverDirectionSendrecv, false)
	lines := strings.Split(b.offer(t, nil), "\r\n")
	for i, l := range lines {
		if rest, ok := strings.CutPrefix(l, "a=fingerprint:sha-256 "); ok {
			lines[i] = "a=fingerprint:sha-256 " + "00" + rest[2:]
			if rest[:2] == "00" {
				lines[i] = "a=fingerprint:sha-256 " + "01" + rest[2:]
			}
		}
	}
	o, err := n.Open(Request{ID: "b", Room: "main", WebRTC: true, Offer: strings.Join(lines, "\r\n"), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	b.answer(t, o.SDP)
	l, _ := n.Leg("b")
	failed := func() bool { return b.pc.ConnectionState() == webrtc.PeerConnectionStateFailed }
	eventually(t, "the browser was refused", failed)
	if l.Info().Connected || l.Info().Cipher != "none" && l.Info().Cipher != "" {
		t.Errorf("leg has keys: %+v", l.Info())
	}
}
