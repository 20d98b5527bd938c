package jami

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Bounds of the lists in a SyncMsg.
const (
	maxMembers     = 10_000
	maxPreferences = 1000
)

// SyncMsg is what two devices of an account tell each other over a channel named
// sync://LONGID: an array of four, of which a message may have some filled (§3.9).
type SyncMsg struct {
	Device        DeviceSync
	Conversations map[string]ConvInfo
	Requests      map[string]ConvRequest
	Preferences   map[string]map[string]string // by conversation
}

// ConvInfo is what a device knows of a conversation. Times are in the unit of the
// device that wrote them: 13.7.0 has unix seconds, newer ones milliseconds; 0 is never.
type ConvInfo struct {
	ID            string
	Created       int64
	Removed       int64
	Erased        int64
	Members       []string // Jami Ids
	LastDisplayed string   // commit
}

// ConvRequest is an invitation into a conversation. Times are as those of [ConvInfo].
type ConvRequest struct {
	From           string // Jami Id
	ConversationID string
	Metadata       map[string]string
	Received       int64
	Declined       int64
}

// Pack returns the array, its maps sorted. The errors are those of [DeviceSync.Pack] and
// [ErrTooLarge].
func (m *SyncMsg) Pack() ([]byte, error) {
	p := newPacker(1024)
	p.limit("conversations", len(m.Conversations), maxSyncConversations)
	p.limit("conversation requests", len(m.Requests), maxSyncConversations)
	p.limit("preferences", len(m.Preferences), maxSyncConversations)
	p.keep(p.e.EncodeArrayLen(4))
	p.deviceSync(&m.Device)
	p.convInfos(m.Conversations)
	p.convRequests(m.Requests)
	p.mapLen(len(m.Preferences))
	for _, id := range slices.Sorted(maps.Keys(m.Preferences)) {
		p.limit("preferences", len(m.Preferences[id]), maxPreferences)
		p.str(id)
		p.strMap(m.Preferences[id])
	}
	b, err := p.done()
	if err == nil && len(b) > MaxSync {
		return nil, fmt.Errorf("%w: %w: %d bytes to synchronise, at most %d", ErrValue, ErrTooLarge, len(b), MaxSync)
	}
	return b, err
}

// ParseSyncMsg reads one message of at most MaxSync bytes. The channel's other end has
// to be a device of the account.
func ParseSyncMsg(b []byte) (*SyncMsg, error) {
	if len(b) > MaxSync {
		return nil, fmt.Errorf("%w: %w: %d bytes to synchronise, at most %d", ErrValue, ErrTooLarge, len(b), MaxSync)
	}
	u := newUnpacker(b)
	m := new(SyncMsg)
	n, err := u.d.DecodeArrayLen()
	if err != nil || n != 4 {
		return nil, fmt.Errorf("%w: not an array of 4", ErrValue)
	}
	if err = u.deviceSync(&m.Device); err == nil {
		m.Conversations, err = u.convInfos()
	}
	if err == nil {
		m.Requests, err = u.convRequests()
	}
	if err == nil {
		m.Preferences, err = u.preferences()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return m, u.end()
}

// SplitSyncMsg is a [bufio.SplitFunc] for the bytes of a channel: a token is one
// message. The scanner's buffer has to take MaxSync bytes.
func SplitSyncMsg(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if len(data) == 0 {
		return 0, nil, nil
	}
	u := newUnpacker(data)
	switch err := u.skip(); {
	case err == nil:
		n := len(data) - u.r.Len()
		return n, data[:n], nil
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return 0, nil, fmt.Errorf("%w: %w", ErrValue, err)
	case atEOF:
		return 0, nil, fmt.Errorf("%w: %w", ErrValue, io.ErrUnexpectedEOF)
	case len(data) >= MaxSync:
		return 0, nil, fmt.Errorf("%w: %w: over %d bytes to synchronise", ErrValue, ErrTooLarge, MaxSync)
	}
	return 0, nil, nil
}

func (p *packer) convInfos(m map[string]ConvInfo) {
	p.mapLen(len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		c := m[id]
		p.limit("members", len(c.Members), maxMembers)
		p.str(id)
		p.mapLen(6)
		p.str("id")
		p.str(c.ID)
		p.str("created")
		p.int(c.Created)
		p.str("removed")
		p.int(c.Removed)
		p.str("erased")
		p.int(c.Erased)
		p.str("members")
		p.keep(p.e.EncodeArrayLen(len(c.Members)))
		for _, one := range c.Members {
			p.str(one)
		}
		p.str("lastDisplayed")
		p.str(c.LastDisplayed)
	}
}

func (u *unpacker) convInfos() (map[string]ConvInfo, error) {
	var m map[string]ConvInfo
	return m, u.entries(maxSyncConversations, func() error {
		id, err := u.str(maxConversation)
		if err != nil {
			return err
		}
		var c ConvInfo
		err = u.each(func(key string) (err error) {
			switch key {
			case "id":
				c.ID, err = u.str(maxConversation)
			case "created":
				c.Created, err = u.seconds()
			case "removed":
				c.Removed, err = u.seconds()
			case "erased":
				c.Erased, err = u.seconds()
			case "members":
				c.Members, err = u.members()
			case "lastDisplayed":
				c.LastDisplayed, err = u.str(maxConversation)
			default:
				err = u.skip()
			}
			return err
		})
		if m == nil {
			m = map[string]ConvInfo{}
		}
		m[id] = c
		return err
	})
}

func (u *unpacker) members() ([]string, error) {
	n, err := u.d.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	var out []string
	return out, u.times(n, maxMembers, func() error {
		s, err := u.str(maxConversation)
		out = append(out, s)
		return err
	})
}

func (p *packer) convRequests(m map[string]ConvRequest) {
	p.mapLen(len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		r := m[id]
		p.limit("metadata", len(r.Metadata), maxMetadata)
		p.str(id)
		p.mapLen(5)
		p.str("from")
		p.str(r.From)
		p.str("conversationId")
		p.str(r.ConversationID)
		p.str("metadatas")
		p.strMap(r.Metadata)
		p.str("received")
		p.int(r.Received)
		p.str("declined")
		p.int(r.Declined)
	}
}

func (u *unpacker) convRequests() (map[string]ConvRequest, error) {
	var m map[string]ConvRequest
	return m, u.entries(maxSyncConversations, func() error {
		id, err := u.str(maxConversation)
		if err != nil {
			return err
		}
		var r ConvRequest
		err = u.each(func(key string) (err error) {
			switch key {
			case "from":
				r.From, err = u.str(maxConversation)
			case "conversationId":
				r.ConversationID, err = u.str(maxConversation)
			case "metadatas":
				r.Metadata, err = u.strMap(maxMetadata)
			case "received":
				r.Received, err = u.seconds()
			case "declined":
				r.Declined, err = u.seconds()
			default:
				err = u.skip()
			}
			return err
		})
		if m == nil {
			m = map[string]ConvRequest{}
		}
		m[id] = r
		return err
	})
}

func (u *unpacker) preferences() (map[string]map[string]string, error) {
	var m map[string]map[string]string
	return m, u.entries(maxSyncConversations, func() error {
		id, err := u.str(maxConversation)
		if err != nil {
			return err
		}
		prefs, err := u.strMap(maxPreferences)
		if m == nil {
			m = map[string]map[string]string{}
		}
		m[id] = prefs
		return err
	})
}
