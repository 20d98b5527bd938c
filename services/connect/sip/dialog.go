package sip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// record is what of a dialog (RFC 3261 §12) is kept on disk.
type record struct {
	ID        string   `json:"id"` // participant id
	Room      string   `json:"room"`
	CallID    string   `json:"call_id"`
	LocalTag  string   `json:"local_tag"`
	RemoteTag string   `json:"remote_tag"`
	Local     string   `json:"local"`  // our To value, with the tag
	Remote    string   `json:"remote"` // the caller's From value, with the tag
	Target    string   `json:"target"` // the caller's Contact URI
	Routes    []string `json:"routes,omitempty"`
	LocalSeq  uint32   `json:"local_seq"`
	RemoteSeq uint32   `json:"remote_seq"`
	Transport string   `json:"transport"`
	Secure    bool     `json:"secure,omitempty"` // it called a sips URI
	Source    string   `json:"source"`           // host:port that the INVITE came from
	RemoteSDP string   `json:"remote_sdp"`
	LocalSDP  string   `json:"local_sdp,omitempty"` // that it answers, or that answered it
	Peer      string   `json:"peer,omitempty"`      // PEM chain of the Jami device that calls; empty: a stranger
	Device    string   `json:"device,omitempty"`    // long id of the Jami device whose channel it is on; empty: a phone
	Account   string   `json:"account,omitempty"`   // short id of our device, as the Contact of such a call has it
	Host      string   `json:"host,omitempty"`      // IP of that device; Source stands for the channel
	Opened    bool     `json:"opened,omitempty"`    // the channel was, for this call
	Unproved  bool     `json:"unproved,omitempty"`  // the room has not been told that the caller is at Source
}

// dialog is a call. Fields of record are guarded by mu after the call is set up.
type dialog struct {
	mu sync.Mutex
	record
	acked     chan struct{} // closed by the ACK of our first 2xx
	ackOnce   sync.Once
	lateOffer bool // our 2xx carried the offer: the ACK brings the answer
	ended     bool
	proving   bool // the room is being told
	guest     *guest

	acks   map[uint32]chan struct{} // by CSeq: closed by the ACK of our 2xx to a re-INVITE
	theirs bool                     // an offer of theirs is being answered
	ours   bool                     // an offer of ours is out
	ack    *sip.Request             // of our last INVITE

	overtaken map[uint32]bool // of a channel: requests that were not looked at when one after them was
	channel   *channelConn    // opened for this call, to be closed with it; nil: none
}

// maxOvertaken bounds the requests of a channel that others may overtake.
const maxOvertaken = 64

// overtakenLocked reports whether a request is one that others have overtaken: those of a channel come in order, but the
// library handles what comes at once at once. It notes those that seq overtakes. The caller holds d.mu.
func (d *dialog) overtakenLocked(seq uint32) bool {
	if seq <= d.RemoteSeq {
		was := d.overtaken[seq]
		delete(d.overtaken, seq)
		return was
	}
	for n := max(d.RemoteSeq, seq-min(seq, maxOvertaken)) + 1; n < seq && len(d.overtaken) < maxOvertaken; n++ {
		if d.overtaken == nil {
			d.overtaken = map[uint32]bool{}
		}
		d.overtaken[n] = true
	}
	return false
}

func (d *dialog) confirm() { d.ackOnce.Do(func() { close(d.acked) }) }

// confirmed reports whether the caller has our first 2xx.
func (d *dialog) confirmed() bool {
	select {
	case <-d.acked:
		return true
	default:
		return false
	}
}

// expectACK returns what the ACK for the request seq will close.
func (d *dialog) expectACK(seq uint32) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.acks == nil {
		d.acks = map[uint32]chan struct{}{}
	}
	c := make(chan struct{})
	d.acks[seq] = c
	if d.ended {
		close(c)
		delete(d.acks, seq)
	}
	return c
}

// gotACK is told of each ACK: one that confirms a request confirms those before.
func (d *dialog) gotACK(seq uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s, c := range d.acks {
		if s <= seq {
			close(c)
			delete(d.acks, s)
		}
	}
}

// theirOffer reserves the dialog for an offer of theirs, or returns the status
// that turns it down (RFC 3261 §14.2, RFC 3311 §5.2).
func (d *dialog) theirOffer() (status int, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ours || d.lateOffer:
		return 491, "Request Pending"
	case d.theirs:
		return 500, "Last Offer Not Answered Yet"
	}
	d.theirs = true
	return 0, ""
}

// change is an SDP of the caller's for its room.
func (d *dialog) change(sdp string, answer bool) Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	source := d.Host
	if d.Device == "" {
		source = sourceIP(d.Source).String()
	}
	return Change{Room: d.Room, ID: d.ID, Source: source, SDP: sdp, Answer: answer}
}

// ourOffer waits until an offer of ours may go out (RFC 3261 §14.1) and reserves
// the dialog for it.
func (d *dialog) ourOffer(ctx context.Context) error {
	for {
		d.mu.Lock()
		switch {
		case d.ended:
			d.mu.Unlock()
			return errors.New("the call is over")
		case !d.ours && !d.theirs && !d.lateOffer && len(d.acks) == 0 && d.confirmed():
			d.ours = true
			d.mu.Unlock()
			return nil
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// offered ends the reservation.
func (d *dialog) offered() {
	d.mu.Lock()
	d.ours, d.theirs = false, false
	d.mu.Unlock()
}

func dialogKey(callID, localTag string) string { return callID + "\x00" + localTag }

// table is every dialog of this process, mirrored to files. The files need not
// survive a loss of power, when the calls are gone too: they are not synced.
type table struct {
	dir string
	mu  sync.Mutex
	m   map[string]*dialog // by dialogKey
	ids map[string]*dialog // by participant

	at   map[string]int     // dialogs by host:port of the caller
	from map[netip.Addr]int // by [sourceKey]
}

func openTable(dir string) (*table, []error) {
	t := &table{dir: dir, m: map[string]*dialog{}, ids: map[string]*dialog{}, at: map[string]int{}, from: map[netip.Addr]int{}}
	var errs []error
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return t, []error{fmt.Errorf("SIP dialogs: %w", err)}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return t, []error{fmt.Errorf("SIP dialogs: %w", err)}
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		d, err := readDialog(path)
		if err != nil {
			// One lost dialog costs one phone a clean BYE; the file is kept to be looked at.
			errs = append(errs, fmt.Errorf("SIP dialog %s set aside as .bad: %w", path, err))
			if err := os.Rename(path, path+".bad"); err != nil {
				errs = append(errs, err)
			}
			continue
		}
		t.m[dialogKey(d.CallID, d.LocalTag)] = d
		t.ids[d.ID] = d
		t.place(d.Source, 1)
	}
	return t, errs
}

func readDialog(path string) (*dialog, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &dialog{acked: make(chan struct{})}
	if err := json.Unmarshal(b, &d.record); err != nil {
		return nil, err
	}
	if d.ID == "" || d.CallID == "" || d.LocalTag == "" || filepath.Base(path) != d.ID+".json" {
		return nil, errors.New("not a dialog")
	}
	d.confirm()
	return d, nil
}

func (t *table) add(d *dialog) error {
	if err := t.save(d); err != nil {
		return err
	}
	t.mu.Lock()
	t.m[dialogKey(d.CallID, d.LocalTag)] = d
	t.ids[d.ID] = d
	t.place(d.Source, 1)
	t.mu.Unlock()
	return nil
}

// place counts a dialog at its source. The caller holds mu.
func (t *table) place(source string, n int) {
	ip := sourceKey(source)
	if t.at[source] += n; t.at[source] <= 0 {
		delete(t.at, source)
	}
	if t.from[ip] += n; t.from[ip] <= 0 {
		delete(t.from, ip)
	}
}

// move notes where the caller's last request came from. The caller holds d.mu.
func (t *table) move(d *dialog, source string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids[d.ID] == d {
		t.place(d.Source, -1)
		t.place(source, 1)
	}
	d.Source = source
}

// uses reports whether a call is at this host:port.
func (t *table) uses(source string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at[source] > 0
}

// knows reports whether a call comes from ip, as [keyOf] has it.
func (t *table) knows(ip netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.from[ip] > 0
}

// save writes the dialog's file. The caller holds d.mu or owns d.
func (t *table) save(d *dialog) error {
	b, err := json.Marshal(&d.record)
	if err != nil {
		return fmt.Errorf("SIP dialog: %w", err)
	}
	path := filepath.Join(t.dir, d.ID+".json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("SIP dialog: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("SIP dialog: %w", err)
	}
	return nil
}

// remove forgets a dialog and reports whether it was there.
func (t *table) remove(d *dialog) bool {
	t.mu.Lock()
	_, ok := t.ids[d.ID]
	if ok {
		t.place(d.Source, -1)
	}
	delete(t.ids, d.ID)
	delete(t.m, dialogKey(d.CallID, d.LocalTag))
	t.mu.Unlock()
	if err := os.Remove(filepath.Join(t.dir, d.ID+".json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return ok // the file is found, and its BYE refused by the phone, at the next start
	}
	return ok
}

func (t *table) find(callID, localTag, remoteTag string) *dialog {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.m[dialogKey(callID, localTag)]
	if d == nil || d.RemoteTag != remoteTag {
		return nil
	}
	return d
}

func (t *table) byID(id string) *dialog {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids[id]
}

func (t *table) all() []*dialog {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*dialog, 0, len(t.ids))
	for _, d := range t.ids {
		out = append(out, d)
	}
	return out
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ids)
}

// saveIfThere writes the file of a dialog that has not been removed. The caller
// holds d.mu.
func (t *table) saveIfThere(d *dialog) error {
	if t.byID(d.ID) != d {
		return nil
	}
	return t.save(d)
}
