package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
	"github.com/parley-jami/parley/services/dht/push"
)

const typeCertificate = 8

type putKey struct {
	key overlay.Key
	id  uint64
}

// kept is a value that was put for a client and lives. All is guarded by the proxy's mu.
type kept struct {
	value     overlay.Value
	permanent bool
	expires   time.Time
	addr      netip.Addr
	client    *client // told before a permanent value ends; nil: nobody
	noticed   bool
}

// client is who is told by a push service.
type client struct {
	push.Target
	id, session string
}

func clientOf(s *proxyjson.Subscription) *client {
	return &client{Target: push.Target{Platform: s.Platform, Token: s.Token, Topic: s.Topic}, id: s.ClientID, session: s.SessionID}
}

// Errors of puts.
var (
	errTaken = errors.New("another value has this id under this key, and may not be replaced by this one; choose another id")
	errShare = errors.New("too many values were put here; wait until some expire")
)

// put stores a value.
func (p *Proxy) put(r *http.Request) httpapi.Answer {
	key, no := p.keyOf(r)
	if no != nil {
		return *no
	}
	body, no := p.Body(r, proxyjson.MaxValue)
	if no != nil {
		return *no
	}
	if len(body) == 0 {
		return p.Refuse(http.StatusBadRequest, httpapi.Invalid, "Missing parameters")
	}
	in, err := proxyjson.ParsePut(body)
	if err != nil {
		return p.misread(err)
	}
	if err := p.acceptable(in); err != nil {
		return p.unacceptable(err)
	}
	v, err := proxyjson.ToOverlay(key, in.Value)
	if err != nil {
		return p.misread(err)
	}
	now := p.o.Now()
	k := &kept{value: v, permanent: in.Permanent, expires: now.Add(overlay.Lifetime(v.Type)), addr: limits.ClientIP(r)}
	if in.Permanent {
		k.expires = now.Add(keepTime)
		if in.Push != nil {
			k.client = clientOf(in.Push)
		}
	}
	before, err := p.take(k)
	if err != nil {
		p.trace("value refused", r, key, zap.Uint64("id", v.ID), zap.Error(err))
		return p.notStored(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), putTime)
	defer cancel()
	stored, err := p.o.Overlay.Put(ctx, v, in.Permanent)
	if err != nil {
		p.untake(k, before)
		p.trace("value refused", r, key, zap.Uint64("id", v.ID), zap.Error(err))
		return p.notStored(err)
	}
	p.trace("value put", r, key, zap.Uint64("id", v.ID), zap.Uint16("type", v.Type), zap.Int("bytes", len(v.Data)), zap.Bool("permanent", in.Permanent), zap.Int("peers", stored.Peers))
	p.poke()
	text, err := proxyjson.Line{Value: in.Value}.Marshal()
	if err != nil {
		return p.misread(err)
	}
	return httpapi.Answer{Status: http.StatusOK, Result: httpapi.OK, Body: append(text, '\n')}
}

// acceptable checks what a client wants to put, and gives it an id.
func (p *Proxy) acceptable(in *proxyjson.Put) error {
	if in.Value.Signed() {
		if err := in.Value.Verify(); err != nil {
			return err
		}
	}
	if in.Push != nil {
		if in.Push.Token == "" { // as from clients without a push service
			in.Push = nil
		} else {
			platform(in.Push)
			if err := p.o.Push.Check(clientOf(in.Push).Target); err != nil {
				return err
			}
		}
	}
	for in.Value.ID == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return fmt.Errorf("value id: %w", err)
		}
		in.Value.ID = binary.BigEndian.Uint64(b[:])
	}
	return nil
}

func (p *Proxy) unacceptable(err error) httpapi.Answer {
	switch {
	case errors.Is(err, jami.ErrSignature), errors.Is(err, jami.ErrKey):
		return p.Refuse(http.StatusBadRequest, resultForged, "the value's signature does not verify")
	case errors.Is(err, push.ErrUnsupported), errors.Is(err, push.ErrEndpoint):
		return p.Refuse(http.StatusBadRequest, resultPush, err.Error())
	}
	return p.Refuse(http.StatusInternalServerError, httpapi.Error, err.Error())
}

// notStored says that a value is not put, and why.
func (p *Proxy) notStored(err error) httpapi.Answer {
	switch {
	case errors.Is(err, errTaken), errors.Is(err, overlay.ErrRefused):
		return p.Refuse(http.StatusBadGateway, resultRefused, err.Error())
	case errors.Is(err, errShare), errors.Is(err, overlay.ErrQuota):
		return p.Refuse(http.StatusBadGateway, resultFull, err.Error())
	case errors.Is(err, overlay.ErrTooLarge):
		return p.misread(fmt.Errorf("%w: %w", jami.ErrTooLarge, err))
	case errors.Is(err, overlay.ErrClosed):
		return p.unavailable(err)
	}
	p.Log.Warn("value not stored", zap.Error(err))
	return p.Refuse(http.StatusBadGateway, resultFailed, "the value could not be stored; try again")
}

// take notes a value before it is put, and returns what it replaces.
func (p *Proxy) take(k *kept) (before *kept, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := putKey{k.value.Key, k.value.ID}
	before = p.puts[at]
	size := p.bytes + len(k.value.Data)
	if before != nil {
		if !replaceable(before.value, k.value) {
			return nil, errTaken
		}
		size -= len(before.value.Data)
	}
	if size > maxPutBytes {
		return nil, fmt.Errorf("%w (%d MiB)", errShare, maxPutBytes>>20)
	}
	if before != nil { // it keeps the place, and who pays for it
		k.addr = before.addr
	} else if !p.shares.puts.Take(k.addr) {
		return nil, errShare
	}
	p.puts[at], p.bytes = k, size
	p.dirty = p.dirty || k.permanent || before != nil && before.permanent
	return before, nil
}

// untake takes a take back, unless another came after it.
func (p *Proxy) untake(k, before *kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := putKey{k.value.Key, k.value.ID}
	switch {
	case p.puts[at] != k:
	case before != nil:
		p.puts[at] = before
		p.bytes += len(before.value.Data) - len(k.value.Data)
	default:
		p.forgetLocked(at)
	}
}

func (p *Proxy) forgetLocked(at putKey) {
	k := p.puts[at]
	p.bytes -= len(k.value.Data)
	p.shares.puts.Free(k.addr)
	delete(p.puts, at)
	p.dirty = p.dirty || k.permanent
}

// replaceable reports whether a value may come in the place of another of its key and id,
// as OpenDHT's nodes see it (§1.7, §2): the same one, one of the same signer that is not
// older, or a certificate, which the key tells to be right.
func replaceable(old, v overlay.Value) bool {
	if old.Type == v.Type && bytes.Equal(old.Data, v.Data) {
		return true
	}
	if old.Type == typeCertificate && v.Type == typeCertificate {
		a, err := jami.ParseCerts(v.Data)
		if err == nil && len(a) > 0 {
			id, long := jami.CertIDs(a[0])
			return id == jami.ID(v.Key) || jami.HashKey(string(long[:])) == jami.ID(v.Key)
		}
	}
	a, errA := jami.ParseValue(old.Data)
	b, errB := jami.ParseValue(v.Data)
	if errA != nil || errB != nil || !a.Signed() || !b.Signed() {
		return false
	}
	return a.Signer() == b.Signer() && b.Seq > a.Seq
}
