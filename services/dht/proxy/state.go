package proxy

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
	"github.com/parley-jami/parley/services/dht/push"
)

const (
	version = 1
	maxFile = 64 << 20
)

// file is what outlives the process.
type file struct {
	Version       int         `json:"version"`
	Subscriptions []fileSub   `json:"subscriptions"`
	Values        []fileValue `json:"values"`
}

type fileClient struct {
	Platform string `json:"platform"`
	Token    string `json:"token"`
	Topic    string `json:"topic,omitempty"`
	ID       string `json:"client_id"`
	Session  string `json:"session_id,omitempty"`
}

type fileSub struct {
	fileClient
	Key     string    `json:"key"`
	Expires time.Time `json:"expires"`
	Noticed bool      `json:"noticed,omitempty"`
	Seen    uint64    `json:"seen,string"`
}

type fileValue struct {
	Key     string      `json:"key"`
	ID      uint64      `json:"id,string"`
	Type    uint16      `json:"type"`
	Data    []byte      `json:"data"`
	Expires time.Time   `json:"expires"`
	Noticed bool        `json:"noticed,omitempty"`
	Client  *fileClient `json:"client,omitempty"`
}

func (c *client) file() fileClient {
	return fileClient{Platform: c.Platform, Token: c.Token, Topic: c.Topic, ID: c.id, Session: c.session}
}

func (c *fileClient) client() client {
	return client{Target: push.Target{Platform: c.Platform, Token: c.Token, Topic: c.Topic}, id: c.ID, session: c.Session}
}

// load reads the file. One that does not parse is set aside.
func (p *Proxy) load() error {
	st, err := os.Stat(p.o.File)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("DHT proxy: %w", err)
	case st.Size() > maxFile:
		return p.setAside(fmt.Errorf("%d bytes, at most %d", st.Size(), maxFile))
	}
	b, err := os.ReadFile(p.o.File)
	if err != nil {
		return fmt.Errorf("DHT proxy: %w", err)
	}
	if err := p.parse(b); err != nil {
		return p.setAside(err)
	}
	return nil
}

// setAside renames a damaged file: clients subscribe and put anew within a day, while a
// proxy that does not start helps none.
func (p *Proxy) setAside(why error) error {
	aside := p.o.File + ".damaged-" + p.o.Now().UTC().Format("20060102T150405")
	if err := os.Rename(p.o.File, aside); err != nil {
		return fmt.Errorf("DHT proxy: %s is damaged (%w), and can't be set aside: %w", p.o.File, why, err)
	}
	p.Log.Error("the file of the DHT proxy's subscriptions and permanent values is damaged and was set aside; clients subscribe anew within a day",
		zap.String("set_aside", aside), zap.Error(why))
	return nil
}

// parse takes all of a file, or nothing.
func (p *Proxy) parse(b []byte) error {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	switch {
	case f.Version != version:
		return fmt.Errorf("version %d, want %d", f.Version, version)
	case len(f.Subscriptions) > maxSubs || len(f.Values) > maxPuts:
		return fmt.Errorf("%d subscriptions and %d values, at most %d and %d", len(f.Subscriptions), len(f.Values), maxSubs, maxPuts)
	}
	subs, err := f.subs()
	if err != nil {
		return err
	}
	values, err := f.values()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range subs {
		if p.subs[s.at()] == nil && p.shares.subs.Take(s.addr) {
			p.addLocked(s)
		}
	}
	for _, k := range values {
		at := putKey{k.value.Key, k.value.ID}
		if size := p.bytes + len(k.value.Data); p.puts[at] == nil && size <= maxPutBytes && p.shares.puts.Take(k.addr) {
			p.puts[at], p.bytes = k, size
		}
	}
	return nil
}

func (f *file) subs() (out []*sub, err error) {
	for i := range f.Subscriptions {
		x := &f.Subscriptions[i]
		s := &sub{client: x.client(), addr: restored, expires: x.Expires, noticed: x.Noticed, seen: x.Seen, old: true}
		if s.key, err = parseHex(x.Key); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (f *file) values() (out []*kept, err error) {
	for i := range f.Values {
		x := &f.Values[i]
		k := &kept{value: overlay.Value{ID: x.ID, Type: x.Type, Data: x.Data}, permanent: true, expires: x.Expires, addr: restored, noticed: x.Noticed}
		if k.value.Key, err = parseHex(x.Key); err != nil {
			return nil, err
		}
		if x.ID == 0 || len(x.Data) > overlay.MaxValue {
			return nil, fmt.Errorf("%w: a value of id %d and %d bytes", proxyjson.ErrField, x.ID, len(x.Data))
		}
		if x.Client != nil {
			c := x.Client.client()
			k.client = &c
		}
		out = append(out, k)
	}
	return out, nil
}

func parseHex(text string) (k overlay.Key, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(k) {
		return k, fmt.Errorf("%w: key %.60q", proxyjson.ErrField, text)
	}
	copy(k[:], b)
	return k, nil
}

// restore puts what is permanent.
func (p *Proxy) restore() {
	now := p.o.Now()
	p.mu.Lock()
	var vs []overlay.Value
	for _, k := range p.puts {
		if k.permanent && k.expires.After(now) {
			vs = append(vs, k.value)
		}
	}
	p.mu.Unlock()
	if err := p.o.Overlay.Restore(vs); err != nil {
		p.Log.Error("permanent values of clients not put", zap.Error(err))
	}
}

// save writes the file.
func (p *Proxy) save() error {
	p.mu.Lock()
	p.dirty, p.saved = false, p.o.Now()
	f := file{Version: version, Subscriptions: make([]fileSub, 0, len(p.subs)), Values: []fileValue{}}
	for _, s := range p.subs {
		f.Subscriptions = append(f.Subscriptions, fileSub{fileClient: s.file(), Key: hexKey(s.key), Expires: s.expires, Noticed: s.noticed, Seen: s.seen})
	}
	for _, k := range p.puts {
		if !k.permanent {
			continue
		}
		x := fileValue{Key: hexKey(k.value.Key), ID: k.value.ID, Type: k.value.Type, Data: k.value.Data, Expires: k.expires, Noticed: k.noticed}
		if k.client != nil {
			c := k.client.file()
			x.Client = &c
		}
		f.Values = append(f.Values, x)
	}
	p.mu.Unlock()
	b, err := json.Marshal(f)
	if err == nil {
		err = atomicfile.Write(p.o.File, append(b, '\n'), 0o600)
	}
	if err != nil {
		p.mu.Lock()
		p.dirty = true
		p.mu.Unlock()
		return fmt.Errorf("DHT proxy: %w", err)
	}
	return nil
}
