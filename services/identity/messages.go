package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"mime"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// maxOff is how far the clock of who writes may be off. A copy of a message that is older, and forgotten
// here, is not taken again: what is treated is remembered for at least that long, but for
// thousands of messages a day.
const maxOff = 24 * time.Hour

// Why a message is not taken.
var (
	errNoText   = errors.New("no message: without a MIME type, or not UTF-8")
	errDate     = errors.New("dated more than a day from now")
	errStranger = errors.New("of somebody who is no contact")
	errMany     = errors.New("strangers write too much")
)

// message treats what somebody wrote, or the confirmation of what was written here (§3.8,
// connect-and-calls §5.1).
func (b *inbox) message(ctx context.Context, v *jami.Value) (verdict, error) {
	m, err := jami.ParseImMessage(v.Data)
	if err != nil {
		return verdictJunk, err
	}
	if m.Text == "" {
		if b.words.confirmed(ctx, v.Signer(), jami.KeyLongID(v.Owner), m.ID) {
			return verdictTaken, nil
		}
		return verdictDropped, nil // late, or of nothing
	}
	if checkType(m.DataType) != nil || !utf8.ValidString(m.Text) || m.ID == 0 {
		return verdictJunk, errNoText
	}
	now := b.s.now()
	if off := now.Sub(time.Unix(m.Date, 0)); off > maxOff || off < -maxOff {
		b.s.env.Log.Info("message is not taken: look at the sender's clock, and at this one", zap.String("account", b.s.id()),
			zap.Stringer("device", v.Signer()), zap.Time("sent", time.Unix(m.Date, 0)))
		return verdictDropped, errDate
	}
	from, why, err := b.author(ctx, v)
	if err != nil {
		return why, err
	}
	w := &written{from: from.JamiID, device: from.DeviceID, id: m.ID, sent: m.Date, typ: m.DataType, body: m.Text}
	what, err := b.take(ctx, w)
	if what == verdictTaken {
		b.words.answer(from, m.ID)
	}
	return what, err
}

// written is a message whose sender is known.
type written struct {
	from      jami.ID
	device    jami.LongID
	id        uint64
	sent      int64 // unix seconds
	typ, body string

	conversation, commit string // of one that came by a conversation
	file                 *contract.FileOffered
}

// take tells of a message, once, if the account takes messages of that sender.
func (b *inbox) take(ctx context.Context, w *written) (verdict, error) {
	c, _ := b.s.acc.Contact(w.from)
	switch {
	case w.from == b.s.acc.Chain.JamiID:
		return verdictJunk, account.ErrOwnContact
	case c.Blocked(): // meanwhile
		return verdictDropped, errBlocked
	case w.conversation != "": // of a member, then
	case !c.Active() && !b.s.acc.Settings().Rendezvous:
		return verdictDropped, errStranger
	}
	if isNotice(w.typ) && w.conversation == "" {
		return b.notice(ctx, c.Active(), w)
	}
	id := messageDigest(w.from, w.id)
	if b.store.Treated(id) { // sent again, since it was not confirmed in time
		return verdictTaken, nil
	}
	if !c.Active() && w.conversation == "" && !b.words.strangers.Allow() {
		return verdictFull, errMany
	}
	e := &contract.Message{ID: jami.MessageID(w.id), From: w.from.String(), Device: w.device.String(), Contact: c.Active(),
		Sent: w.sent, Received: b.s.now().Unix(), Type: w.typ, Body: w.body, Conversation: w.conversation, Commit: w.commit, File: w.file}
	if err := bus.Publish(ctx, b.s.conn, contract.MessageEvents, e, e.From); err != nil {
		return verdictLater, err
	}
	b.store.Treat(id)
	b.unsaved.Store(true)
	b.s.env.Log.Info("message received", zap.String("account", b.s.id()), zap.Stringer("from", w.from), zap.String("type", w.typ), zap.Int("bytes", len(w.body)))
	return verdictTaken, nil
}

// messageTake takes what came over a connection. A stock peer wants to hear at once that it
// came, whatever becomes of it (connect-and-calls §5.1); it tries again where it is told an
// error.
func (s *hosted) messageTake(ctx context.Context, r *bus.Request[contract.MessageHeard]) (*contract.None, error) {
	b, q := s.inbox, &r.Body
	from, err1 := jami.ParseID(q.From)
	device, err2 := jami.ParseLongID(q.Device)
	var id uint64
	var err3 error
	if q.ID == "" {
		id, err3 = newMessageID()
	} else {
		id, err3 = jami.ParseMessageID(q.ID)
	}
	err := errors.Join(err1, err2, err3)
	switch {
	case err != nil:
		return nil, contract.ErrBadRequest.With("%v", err)
	case checkType(q.Type) != nil || !utf8.ValidString(q.Body) || q.Body == "" || len(q.Body) > contract.MaxMessage:
		return nil, contract.ErrBadRequest.With("%v", errNoText)
	case b == nil:
		return nil, contract.ErrStateDamaged.With("the files of the account's inbox cannot be used: look at the log of identity")
	case !b.words.writers.may(jami.ID(device[:20])):
		return nil, contract.ErrSlowDown.With("the device writes too much at once")
	}
	w := &written{from: from, device: device, id: id, sent: s.now().Unix(), typ: q.Type, body: q.Body, conversation: q.Conversation, commit: q.Commit, file: q.File}
	if q.Conversation != "" {
		w.sent = q.Sent
	}
	what, err := b.take(ctx, w)
	b.count(what)
	switch what {
	case verdictTaken:
	case verdictFull:
		return nil, contract.ErrSlowDown.With("%v", err)
	case verdictLater:
		return nil, err
	default:
		s.env.Log.Info("message is not taken", zap.String("account", s.id()), zap.Stringer("from", from), zap.Error(err))
	}
	return &contract.None{}, nil
}

// messageDigest tells a message apart among all that was treated: senders choose ids.
func messageDigest(from jami.ID, id uint64) account.Digest {
	b := append([]byte("message "), from[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, id))
}

// checkType refuses what is no MIME type.
func checkType(s string) error {
	if len(s) > contract.MaxMessageType {
		return fmt.Errorf("a MIME type of %d bytes, at most %d", len(s), contract.MaxMessageType)
	}
	t, _, err := mime.ParseMediaType(s)
	if err == nil && !strings.Contains(t, "/") {
		err = errors.New("a MIME type has two parts")
	}
	return err
}

// maxMessageID bounds the ids of messages: receivers read them as numbers of JavaScript, too
// (connect-and-calls §1.1).
const maxMessageID = 1 << 53

// newMessageID makes the id of a message: receivers remember those that came, so each is
// another one.
func newMessageID() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:])%maxMessageID + 1, nil
}

func (s *hosted) messageSend(ctx context.Context, r *bus.Request[contract.MessageSend]) (*contract.MessageQueued, error) {
	to, err := jami.ParseID(r.Body.To)
	if err != nil || to.IsZero() {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	typ, body := r.Body.Type, r.Body.Body
	if typ == "" {
		typ = "text/plain"
	}
	switch {
	case to == s.acc.Chain.JamiID:
		return nil, contract.ErrBadRequest.With("that is this account itself")
	case checkType(typ) != nil || !strings.HasPrefix(typ, "text/"): // others steer clients: conversations, calls
		return nil, contract.ErrBadRequest.With("%.60q is no type of text, such as text/plain", typ)
	case body == "" || len(body) > contract.MaxMessage || !utf8.ValidString(body):
		return nil, contract.ErrBadRequest.With("a message is UTF-8 of 1 to %d bytes", contract.MaxMessage)
	}
	if err := s.mayWrite(to); err != nil {
		return nil, err
	}
	if c, _ := s.acc.Contact(to); c.Active() && c.ConversationID != "" && typ == "text/plain" && !r.Body.Direct {
		if q, err := s.commit(ctx, to, body); q != nil || err != nil {
			return q, err
		}
	}
	id, err := newMessageID()
	if err != nil {
		return nil, err
	}
	m := &outMessage{id: id, to: to, typ: typ, body: body, done: map[jami.ID]bool{}}
	if err := s.inbox.words.send(m); err != nil {
		return nil, err
	}
	return &contract.MessageQueued{ID: jami.MessageID(m.id)}, nil
}
