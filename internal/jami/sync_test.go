package jami

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	mrand "math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func vectorData(t testing.TB, name string) []byte {
	t.Helper()
	key, err := ParseKey(vector(t, "recipient_device.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseValue(vector(t, name+".value.bin"))
	if err == nil {
		v, err = v.Decrypt(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v.Data
}

func TestVectorMessages(t *testing.T) {
	data := vectorData(t, "enc_trust_request_confirm")
	r, err := ParseTrustRequest(data)
	want := &TrustRequest{Service: TrustService, ConversationID: "4788914b23057f598383874022ed530c84152ca8", Confirm: true}
	if err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("trust request %+v, %v", r, err)
	}
	if b, err := want.Pack(); err != nil || !bytes.Equal(b, data) {
		t.Errorf("trust request packed: %x, %v", b, err)
	}
	data = vectorData(t, "enc_im_message")
	m, err := ParseImMessage(data)
	if err != nil || m.ID != 8287789016906707 || m.Date != 1795479141 || m.Status != 0 ||
		m.DataType != "application/im-gitmessage-id" || !strings.Contains(m.Text, "deviceId") || m.Metadata != nil {
		t.Errorf("message %+v, %v", m, err)
	}
	if b, err := m.Pack(); err != nil || !bytes.Equal(b, data) {
		t.Errorf("message packed: %x, %v", b, err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	big := &TrustRequest{Service: TrustService, Payload: make([]byte, MaxPayload)}
	b, err := big.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := ParseTrustRequest(b); err != nil || len(r.Payload) != MaxPayload {
		t.Error(err)
	}
	over := bytes.Replace(b, []byte("\xc5\xfa\x00"), []byte("\xc5\xfa\x01x"), 1)
	if _, err := ParseTrustRequest(over); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a payload of %d bytes: %v", MaxPayload+1, err)
	}
	big.Payload = append(big.Payload, 0)
	if _, err := big.Pack(); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	many := map[string]string{}
	for i := range maxMetadata + 1 {
		many[string(rune('A'+i))] = ""
	}
	for what, m := range map[string]*ImMessage{
		"text": {Text: strings.Repeat("x", MaxValue+1)}, "type": {DataType: strings.Repeat("x", 5000)}, "metadata": {Metadata: many},
	} {
		if _, err := m.Pack(); !errors.Is(err, ErrValue) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, s := range []string{"", "\xc0", "\x90", "\x81\xa2id\xd0\xff\x01", "\x81\xa3msg\x01", "\x81\xa4date\xff", "\x81\xa4date\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
		"\x80\x80", "\x81\xa9metadatas\xdf\xff\xff\xff\xff", "\x82\xa2id\x01\xa2id\x01"} {
		if m, err := ParseImMessage([]byte(s)); err == nil {
			t.Errorf("%q is taken for %+v", s, m)
		}
	}
}

func sampleSync() *DeviceSync {
	return &DeviceSync{
		Date: 1795479091_000000000, Devices: map[LongID]SyncDevice{{2}: {Name: "v", Short: ID{3}}},
		Peers:    map[ID]Contact{{4}: {Added: 1795479136, Confirmed: true, ConversationID: "c"}},
		Requests: map[ID]PendingRequest{{5}: {ConversationID: "d", Received: 7}},
	}
}

// The layout of §3.9, written out.
func TestDeviceSyncBytes(t *testing.T) {
	z := func(n int) string { return strings.Repeat("00", n) }
	want := unhex(t, "86"+
		"a464617465cf18ead2b86cb23e00"+ // date
		"ab6465766963655f6e616d65a0"+ // device_name
		"ad646576696365735f6b6e6f776e80"+ // devices_known
		"a76465766963657381c42002"+z(31)+"82a46e616d65a176a473686131c41403"+z(19)+ // devices
		"a5706565727381c41404"+z(19)+"85a56164646564ce6b04d660a772656d6f76656400a9636f6e6669726d6564c3a662616e6e6564c2ae636f6e766572736174696f6e4964a163"+ // peers
		"ae74727573745f726571756573747381c41405"+z(19)+"84a6646576696365c0ae636f6e766572736174696f6e4964a164a87265636569766564"+"07a77061796c6f6164c400")
	s := sampleSync()
	b, err := s.Pack()
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("packed\n%x, want\n%x, %v", b, want, err)
	}
	if got, err := ParseDeviceSync(want); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	// A newer version leaves out what is old, and has more; an older one knew names alone.
	newer := append([]byte("\x83\xa4date\x01\xa7devices\x81\xc4\x20"), make([]byte, 32)...)
	newer = append(newer, "\x82\xa4name\xa1n\xa3new\x93\x01\x02\x03\xa4more\x80"...)
	if got, err := ParseDeviceSync(newer); err != nil || got.Devices[LongID{}].Name != "n" {
		t.Errorf("newer: %+v, %v", got, err)
	}
	older := append([]byte("\x81\xaddevices_known\x81\xc4\x14"), make([]byte, 20)...)
	if got, err := ParseDeviceSync(append(older, "\xa1n"...)); err != nil || got.Legacy[ID{}] != "n" {
		t.Errorf("older: %+v, %v", got, err)
	}
}

func TestSyncIsBounded(t *testing.T) {
	for what, change := range map[string]func(*DeviceSync){
		"requests": func(s *DeviceSync) {
			for i := range byte(MaxSyncRequests + 1) {
				s.Requests[ID{i}] = PendingRequest{}
			}
		},
		"contacts": func(s *DeviceSync) {
			for i := range maxSyncPeers + 1 {
				s.Peers[ID{byte(i), byte(i >> 8)}] = Contact{}
			}
		},
		"devices": func(s *DeviceSync) {
			for i := range maxSyncDevices + 1 {
				s.Devices[LongID{byte(i), byte(i >> 8)}] = SyncDevice{}
			}
		},
	} {
		s := sampleSync()
		change(s)
		if _, err := s.Pack(); !errors.Is(err, ErrTooMany) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// What another one packs without bounds.
	p := newPacker(0)
	p.mapLen(1)
	p.str("trust_requests")
	p.mapLen(MaxSyncRequests + 1)
	for i := range byte(MaxSyncRequests + 1) {
		p.bin([]byte{19: i})
		p.mapLen(0)
	}
	b, err := p.done()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseDeviceSync(b); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if _, err := ParseDeviceSync(make([]byte, MaxValue+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	for _, s := range []string{"\xc0", "\x81\xa5peers\xdf\x7f\xff\xff\xff", "\x81\xa5peers\x81\xc4\x01x\x80", "\x81\xa7devices\x81\xc4\x14" + strings.Repeat("x", 20) + "\x80"} {
		if got, err := ParseDeviceSync([]byte(s)); err == nil {
			t.Errorf("%q is taken for %+v", s, got)
		}
	}
}

func sampleSyncMsg() *SyncMsg {
	return &SyncMsg{
		Device: *sampleSync(),
		Conversations: map[string]ConvInfo{"4788914b23057f598383874022ed530c84152ca8": {ID: "4788914b23057f598383874022ed530c84152ca8", Created: 1795479136,
			Members: []string{vecAccount, "beb3100b089bad29623bdf2cd204274908ca5c93"}}},
		Requests:    map[string]ConvRequest{"r": {From: vecAccount, ConversationID: "r", Metadata: map[string]string{"title": "t"}, Received: 5, Declined: 6}},
		Preferences: map[string]map[string]string{"c": {"color": "#fff", "symbol": "x"}},
	}
}

func TestSyncMsg(t *testing.T) {
	var stream []byte
	want := []*SyncMsg{sampleSyncMsg(), {}, {Preferences: map[string]map[string]string{"c": nil}}}
	for _, m := range want {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		stream = append(stream, b...)
	}
	// The conversation as jamid keeps it on disk.
	conv := "81d9283437383839313462323330353766353938333833383734303232656435333063383431353263613886a26964d92834373838393134623233303537663539383338333837343032326564353330633834313532636138a763726561746564ce6b04d660a772656d6f76656400a665726173656400a76d656d6265727392d92834663839316232316138376435653363343166393635363365333538613239356162613465393630d92862656233313030623038396261643239363233626466326364323034323734393038636135633933ad6c617374446973706c61796564a0"
	if !strings.Contains(hex.EncodeToString(stream), conv) {
		t.Errorf("no %s in\n%x", conv, stream)
	}
	s := bufio.NewScanner(iotest.OneByteReader(bytes.NewReader(stream)))
	s.Buffer(nil, MaxSync)
	s.Split(SplitSyncMsg)
	for i := 0; s.Scan(); i++ {
		if got, err := ParseSyncMsg(s.Bytes()); err != nil || !reflect.DeepEqual(got, want[i]) {
			t.Errorf("message %d: %+v, %v", i, got, err)
		}
		if i == len(want)-1 {
			want = nil
		}
	}
	if s.Err() != nil || want != nil {
		t.Errorf("not all came: %v", s.Err())
	}
	for in, want := range map[string]error{string(stream[:50]): io.ErrUnexpectedEOF, strings.Repeat("\x91", 40) + "\x01": ErrValue} {
		s := bufio.NewScanner(strings.NewReader(in))
		s.Split(SplitSyncMsg)
		if s.Scan() || !errors.Is(s.Err(), want) {
			t.Errorf("%.20q: %v", in, s.Err())
		}
	}
	for _, b := range []string{"\x93\x80\x80\x80", "\x95\x80\x80\x80\x80\x80", "\x94\x80\xdf\x7f\xff\xff\xff", "\x94\x80\x80\x80\x80\x80", "\x94\x80\x81\xa1c\x81\xa7members\xdd\x7f\xff\xff\xff"} {
		if got, err := ParseSyncMsg([]byte(b)); !errors.Is(err, ErrValue) {
			t.Errorf("%q is taken for %+v, %v", b, got, err)
		}
	}
}

func TestRequestsFile(t *testing.T) {
	spki := vecChain(t).Device.RawSubjectPublicKeyInfo
	m := map[ID]PendingRequest{{1}: {Device: spki, ConversationID: "c", Received: 1795479091, Payload: []byte("BEGIN:VCARD")}, {2}: {Received: 1}}
	b, err := PackRequests(m)
	if err != nil {
		t.Fatal(err)
	}
	head := "82c41401" + strings.Repeat("00", 19) + "84a6646576696365c50226" + hex.EncodeToString(spki) + "ae636f6e766572736174696f6e4964a163a87265636569766564ce6b04d633"
	if !strings.HasPrefix(hex.EncodeToString(b), head) {
		t.Errorf("packed %x", b)
	}
	if got, err := ParseRequests(b); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, s := range []string{"", "\x01", "\x80\x80", "\xdf\xff\xff\xff\xff", "\x81\xc4\x02hi\x80", "\x81\xc4\x14" + strings.Repeat("x", 20) + "\x81\xa6device\xc4\x01x"} {
		if got, err := ParseRequests([]byte(s)); !errors.Is(err, ErrFile) {
			t.Errorf("%q is taken for %v, %v", s, got, err)
		}
	}
	if empty, err := ParseRequests([]byte("\x80")); err != nil || empty == nil {
		t.Error(empty, err)
	}
}

func TestContactMerge(t *testing.T) {
	for _, x := range []struct {
		what       string
		a, b, want Contact
		active     bool
		blocked    bool
	}{
		{"added again elsewhere", Contact{Added: 10, Removed: 20, ConversationID: "old"}, Contact{Added: 30, ConversationID: "new"},
			Contact{Added: 30, Removed: 20, ConversationID: "new"}, true, false},
		{"removed elsewhere", Contact{Added: 10, Confirmed: true, ConversationID: "c"}, Contact{Added: 10, Removed: 20, ConversationID: "c"},
			Contact{Added: 10, Removed: 20, Confirmed: true, ConversationID: "c"}, false, false},
		{"banned elsewhere", Contact{Added: 10}, Contact{Added: 10, Removed: 20, Banned: true}, Contact{Added: 10, Removed: 20, Banned: true}, false, true},
		{"the ban lifted by a later removal", Contact{Removed: 20, Banned: true}, Contact{Removed: 30}, Contact{Removed: 30}, false, false},
		{"a ban does not count where active", Contact{Added: 40}, Contact{Removed: 30, Banned: true}, Contact{Added: 40, Removed: 30, Banned: true}, true, false},
		{"confirmed elsewhere", Contact{Added: 1}, Contact{Added: 1, Confirmed: true}, Contact{Added: 1, Confirmed: true}, true, false},
	} {
		for _, got := range []Contact{x.a.Merge(x.b), x.b.Merge(x.a)} {
			if got != x.want || got.Active() != x.active || got.Blocked() != x.blocked {
				t.Errorf("%s: %+v", x.what, got)
			}
		}
	}
}

func TestPending(t *testing.T) {
	s := AccountState{Contacts: map[ID]Contact{
		{1}: {Added: 5}, {2}: {Removed: 5, Banned: true}, {3}: {Added: 1, Removed: 9}, {4}: {Added: 1, Removed: 10}, {5}: {Added: 1, Removed: 11},
	}, Requests: map[ID]PendingRequest{}}
	for i := range byte(7) {
		s.Requests[ID{i}] = PendingRequest{Received: 10}
	}
	got := s.Pending()
	for i := range byte(7) {
		_, is := got[ID{i}]
		if want := i == 0 || i == 3 || i == 6; is != want {
			t.Errorf("%d is pending: %v", i, is)
		}
	}
}

func randomState(r *mrand.Rand) AccountState {
	text := func() string { return []string{"", "a", "b"}[r.IntN(3)] }
	sync := &DeviceSync{Date: r.Uint64N(3), Devices: map[LongID]SyncDevice{}, Peers: map[ID]Contact{}, Requests: map[ID]PendingRequest{}}
	for i := range byte(3) {
		if r.IntN(3) > 0 {
			sync.Devices[LongID{i}] = SyncDevice{Name: text(), Short: ID{byte(r.IntN(2))}}
		}
		if r.IntN(3) > 0 {
			sync.Peers[ID{i}] = Contact{Added: r.Int64N(3), Removed: r.Int64N(3), Confirmed: r.IntN(2) > 0, Banned: r.IntN(2) > 0, ConversationID: text()}
		}
		if r.IntN(3) > 0 {
			sync.Requests[ID{i}] = PendingRequest{Received: r.Int64N(3), ConversationID: text(), Payload: []byte(text()), Device: []byte(text())}
		}
	}
	return sync.State(LongID{byte(r.IntN(3))})
}

func TestMergeOfStatesIsASemilattice(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	seed := mrand.Uint64()
	r := mrand.New(mrand.NewPCG(seed, 0))
	for range 20_000 {
		a, b, c := randomState(r), randomState(r), randomState(r)
		ab := a.Merge(b)
		for what, pair := range map[string][2]AccountState{
			"commutative": {ab, b.Merge(a)},
			"associative": {ab.Merge(c), a.Merge(b.Merge(c))},
			"idempotent":  {a.Merge(a), a},
			"absorbing":   {ab.Merge(a).Merge(b), ab},
			"nothing":     {a.Merge(AccountState{}), a},
		} {
			if !reflect.DeepEqual(pair[0], pair[1]) {
				t.Fatalf("not %s (seed %d)\na %+v\nb %+v\nc %+v\n= %+v\n! %+v", what, seed, a, b, c, pair[0], pair[1])
			}
		}
	}
}

// A device's own name goes before what others heard, then the newer one.
func TestDeviceNames(t *testing.T) {
	id := LongID{1}
	say := func(from byte, at uint64, name string) AccountState {
		return (&DeviceSync{Date: at, Devices: map[LongID]SyncDevice{id: {Name: name}}}).State(LongID{from})
	}
	s := say(2, 9, "hearsay").Merge(say(1, 3, "old")).Merge(say(1, 5, "new")).Merge(say(3, 99, "late hearsay")).Merge(say(1, 100, ""))
	if got := s.Devices[id].Name; got != "new" {
		t.Errorf("the device is called %q", got)
	}
}
