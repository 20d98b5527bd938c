package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus/contract"
)

// Error codes of the JetStream API (nats-server, server/errors.json).
const (
	errCodeWrongLast  = 10071 // expected last sequence was another
	errCodeMeanwhile  = 10164 // the same of a replicated stream, while another write is under way
	errCodeNoMessage  = 10037
	errCodeNoStream   = 10059
	errCodeMaxBytes   = 10077
	headerExpectLast  = "Nats-Expected-Last-Subject-Sequence"
	headerTTL         = "Nats-TTL"
	headerKVOperation = "KV-Operation"
)

// stored is one stored message.
type stored struct {
	seq    uint64
	data   []byte
	header nats.Header
}

// stream speaks to one stream that the bus process made, by the few requests that
// a process may send: see contract.StreamRoomEvents for why no others.
type stream struct {
	c    *Conn
	name string
}

type apiError struct {
	Code    int    `json:"code"`
	ErrCode int    `json:"err_code"`
	Text    string `json:"description"`
}

// err maps an answer of JetStream to the contract's errors.
func (e *apiError) err(what string) error {
	switch {
	case e == nil:
		return nil
	case e.ErrCode == errCodeWrongLast || e.ErrCode == errCodeMeanwhile:
		return contract.ErrStale.With("%s: somebody else wrote it", what)
	case e.ErrCode == errCodeNoMessage || e.Code == http.StatusNotFound && e.ErrCode != errCodeNoStream:
		return contract.ErrNotFound.With("%s: not stored", what)
	case e.ErrCode == errCodeMaxBytes || e.Code == http.StatusInsufficientStorage:
		return contract.ErrStorage.With("%s: %s", what, e.Text)
	default:
		return contract.ErrUnavailable.With("%s: %s", what, e.Text)
	}
}

// ask sends a JetStream request and parses the answer into a.
func (s stream) ask(ctx context.Context, subject string, body []byte, header nats.Header, a any) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	r, err := s.c.request(ctx, &nats.Msg{Subject: subject, Data: body, Header: header})
	if err != nil {
		return requestError(err, s.name, "JetStream")
	}
	if err := json.Unmarshal(r.Data, a); err != nil {
		return contract.ErrInternal.With("%s: %v", s.name, err)
	}
	return nil
}

func (s stream) get(ctx context.Context, q any, what string) (*stored, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var a struct {
		Error   *apiError `json:"error"`
		Message *struct {
			Seq    uint64 `json:"seq"`
			Data   []byte `json:"data"`
			Header []byte `json:"hdrs"`
		} `json:"message"`
	}
	if err := s.ask(ctx, "$JS.API.STREAM.MSG.GET."+s.name, body, nil, &a); err != nil {
		return nil, err
	}
	if a.Error != nil {
		return nil, a.Error.err(what)
	}
	if a.Message == nil {
		return nil, contract.ErrInternal.With("%s: an answer without a message", what)
	}
	out := &stored{seq: a.Message.Seq, data: a.Message.Data}
	if len(a.Message.Header) > 0 {
		if out.header, err = nats.DecodeHeadersMsg(a.Message.Header); err != nil {
			return nil, contract.ErrInternal.With("%s: %v", what, err)
		}
	}
	return out, nil
}

// subjects returns the count of messages of each subject that matches filter.
func (s stream) subjects(ctx context.Context, filter string) (map[string]uint64, error) {
	var a struct {
		Error *apiError `json:"error"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	body, err := json.Marshal(map[string]string{"subjects_filter": filter})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if err := s.ask(ctx, "$JS.API.STREAM.INFO."+s.name, body, nil, &a); err != nil {
		return nil, err
	}
	if a.Error != nil {
		return nil, a.Error.err(s.name)
	}
	return a.State.Subjects, nil
}

// write stores a message and returns its sequence, once it is stored.
func (s stream) write(ctx context.Context, subject string, data []byte, h nats.Header) (uint64, error) {
	var a struct {
		Error *apiError `json:"error"`
		Seq   uint64    `json:"seq"`
	}
	if err := s.ask(ctx, subject, data, h, &a); err != nil {
		return 0, err
	}
	if a.Error != nil {
		return 0, a.Error.err(subject)
	}
	return a.Seq, nil
}

// KV is a key-value bucket that the bus process made. It is laid out as NATS lays out buckets, so that its
// tools read it. Errors are *contract.Error.
type KV struct {
	s      stream
	prefix string
}

// KV returns the bucket of that name. A key is one or more subject tokens.
func (c *Conn) KV(bucket string) *KV {
	return &KV{stream{c, "KV_" + bucket}, "$KV." + bucket + "."}
}

// Get returns the newest value of key, "not_found" when there is none. A deleted
// key is "not_found" with the revision of its deletion, on which Update can build.
func (k *KV) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	m, err := k.s.get(ctx, map[string]string{"last_by_subj": k.prefix + key}, key)
	if err != nil {
		return nil, 0, err
	}
	if m.header.Get(headerKVOperation) != "" {
		return nil, m.seq, contract.ErrNotFound.With("%s: deleted", key)
	}
	return m.data, m.seq, nil
}

// Put sets key, whatever it was.
func (k *KV) Put(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	return k.s.write(ctx, k.prefix+key, value, nil)
}

// Update sets key if its newest revision is the given one (0: the key was never
// set), else "stale_epoch". ttl, rounded up to whole seconds, is when the key goes
// by itself; 0: never. Only the bucket of leases takes one.
func (k *KV) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	h := nats.Header{headerExpectLast: {strconv.FormatUint(revision, 10)}}
	if ttl > 0 {
		h.Set(headerTTL, strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10))
	}
	return k.s.write(ctx, k.prefix+key, value, h)
}

// Delete removes key.
func (k *KV) Delete(ctx context.Context, key string) error {
	_, err := k.s.write(ctx, k.prefix+key, nil, nats.Header{headerKVOperation: {"DEL"}})
	return err
}

// Keys returns every key that was set and has not expired, in no order; deleted
// ones too: Get tells.
func (k *KV) Keys(ctx context.Context) ([]string, error) {
	in, err := k.s.subjects(ctx, k.prefix+">")
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(in))
	for s := range in {
		out = append(out, strings.TrimPrefix(s, k.prefix))
	}
	return out, nil
}

// requestError maps what a request can fail with.
func requestError(err error, name, service string) *contract.Error {
	var e *contract.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting):
		return contract.ErrUnavailable.With("%s: %s is not running; it is being restarted", name, service)
	default:
		return contract.ErrTimeout.With("%s: no answer from %s: %v", name, service, err)
	}
}
