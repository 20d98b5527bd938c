package jami

import "fmt"

// Types of values that Jami puts into the DHT (§1.7). All but these are TypeData.
const (
	TypeData         = 0
	TypeImMessage    = 3
	TypeTrustRequest = 4
	TypeCertificate  = 8
)

// TrustService is the service of a trust request to a person; receivers ignore others
// (§3.8).
const TrustService = "cx.ring"

// MaxPayload bounds the vCard of a trust request in bytes (§3.8).
const MaxPayload = 64_000

// Bounds of texts in messages, in bytes; stock's are far below.
const (
	maxConversation = 128
	maxName         = 1 << 10
	maxMetadata     = 64 // entries
)

// TrustRequest asks to be somebody's contact or, with Confirm, accepts that. It is the
// data of an encrypted value of [TypeTrustRequest] at a device's [InboxKey] (§3.8).
type TrustRequest struct {
	Service        string // [TrustService]
	ConversationID string
	Payload        []byte // vCard, at most MaxPayload bytes
	Confirm        bool
}

// Pack returns the map as stock writes it. The errors are [ErrValue] and [ErrTooLarge].
func (r *TrustRequest) Pack() ([]byte, error) {
	if err := checkRequest(r.ConversationID, r.Payload); err != nil {
		return nil, err
	}
	if err := checkText("service", r.Service, maxName); err != nil {
		return nil, err
	}
	p := newPacker(len(r.Payload) + 128)
	p.mapLen(4)
	p.str("service")
	p.str(r.Service)
	p.str("conversationId")
	p.str(r.ConversationID)
	p.str("payload")
	p.bin(r.Payload)
	p.str("confirm")
	p.bool(r.Confirm)
	return p.done()
}

// ParseTrustRequest reads the data of a value. The sender is the value's signer; whether
// it may be believed is internal/trust's to say.
func ParseTrustRequest(b []byte) (*TrustRequest, error) {
	u := newUnpacker(b)
	r := new(TrustRequest)
	err := u.each(func(key string) (err error) {
		switch key {
		case "service":
			r.Service, err = u.str(maxName)
		case "conversationId":
			r.ConversationID, err = u.str(maxConversation)
		case "payload":
			r.Payload, err = u.bytesOrNil()
		case "confirm":
			r.Confirm, err = u.d.DecodeBool()
		default:
			err = u.skip()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := checkRequest(r.ConversationID, r.Payload); err != nil {
		return nil, err
	}
	return r, u.end()
}

func checkRequest(conversation string, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("%w: %w: a payload of %d bytes, at most %d", ErrValue, ErrTooLarge, len(payload), MaxPayload)
	}
	return checkText("conversation id", conversation, maxConversation)
}

func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: a %s of %d bytes, at most %d", ErrValue, what, len(s), limit)
	}
	return nil
}

// ImMessage is a message where there is no connection: the data of an encrypted value
// of [TypeImMessage] at a device's [InboxKey]. The receiver answers with the same id and
// no text, at its own inbox key (§3.8).
type ImMessage struct {
	ID       uint64
	Text     string // at most MaxValue bytes
	Date     int64  // unix seconds
	Status   int    // 0
	DataType string // MIME type
	Metadata map[string]string
}

// Pack returns the map as stock writes it, Metadata sorted.
func (m *ImMessage) Pack() ([]byte, error) {
	if len(m.Text) > MaxValue {
		return nil, fmt.Errorf("%w: %w: a text of %d bytes, at most %d", ErrValue, ErrTooLarge, len(m.Text), MaxValue)
	}
	if err := checkText("data type", m.DataType, maxName); err != nil {
		return nil, err
	}
	if len(m.Metadata) > maxMetadata {
		return nil, fmt.Errorf("%w: %d metadata, at most %d", ErrValue, len(m.Metadata), maxMetadata)
	}
	p := newPacker(len(m.Text) + 128)
	p.mapLen(6)
	p.str("id")
	p.uint(m.ID)
	p.str("msg")
	p.str(m.Text)
	p.str("date")
	p.int(m.Date)
	p.str("status")
	p.int(int64(m.Status))
	p.str("datatype")
	p.str(m.DataType)
	p.str("metadatas")
	p.strMap(m.Metadata)
	return p.done()
}

// ParseImMessage reads the data of a value. The sender is the value's signer.
func ParseImMessage(b []byte) (*ImMessage, error) {
	u := newUnpacker(b)
	m := new(ImMessage)
	err := u.each(func(key string) (err error) {
		switch key {
		case "id":
			m.ID, err = u.d.DecodeUint64()
		case "msg":
			m.Text, err = u.str(MaxValue)
		case "date":
			m.Date, err = u.seconds()
		case "status":
			m.Status, err = u.d.DecodeInt()
		case "datatype":
			m.DataType, err = u.str(maxName)
		case "metadatas":
			m.Metadata, err = u.strMap(maxMetadata)
		default:
			err = u.skip()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, u.end()
}
