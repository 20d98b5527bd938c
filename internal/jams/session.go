package jams

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// maxWait bounds what a server may ask a client to wait.
const maxWait = time.Hour

// later is how long the server wants to be left alone.
type later time.Duration

func (l later) Error() string { return "again in " + time.Duration(l).String() }

// RetryAfter returns for how long the server wants to be left alone, where it said so.
func RetryAfter(err error) (time.Duration, bool) {
	l, ok := errors.AsType[later](err)
	return time.Duration(l), ok
}

// Session speaks for a user or for a device, over the whole life of either: it logs in
// when it has to, and again when a token is not taken any more. It is safe for
// concurrent use; every request ends with its context or after 30 s.
//
// What a device has to tell apart:
//
//	ErrRevoked         the device or its account is ended for good
//	ErrBadCredentials  the server does not know the device, or its user is disabled
//	ErrSigner          the device's key did not sign; the server may be well
//	ErrLimited         too many requests, see [RetryAfter]
//	ErrUnavailable     the server is unreachable, too slow or out of order, see [RetryAfter]
type Session struct {
	server string
	http   *http.Client
	now    func() time.Time
	scope  string
	auth   func(*http.Request) // of the login
	signer *signer             // nil for a user

	turn  chan struct{} // held while logging in: others wait for the token
	token string        // with turn
	until time.Time     // with turn
}

// AsUser speaks for a user, who may revoke devices.
func (c *Client) AsUser(user, password string) *Session {
	return &Session{server: c.server, http: c.http, now: c.o.Now, scope: ScopeUser, auth: basic(user, password), turn: make(chan struct{}, 1)}
}

// AsDevice speaks for a device with its key and its chain. The key may be elsewhere: it
// is asked for a signature of each TLS handshake, with TLS 1.3 by RSA-PSS of SHA-256 to
// SHA-512 and a salt as long as the hash.
func (c *Client) AsDevice(key crypto.Signer, chain *trust.Chain) (*Session, error) {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(chain.Device.PublicKey) {
		return nil, ErrInvalid.With("the key is not that of the device's certificate")
	}
	s := &signer{Signer: key}
	cert := &tls.Certificate{PrivateKey: s, Leaf: chain.Device, Certificate: [][]byte{chain.Device.Raw, chain.Account.Raw}}
	for _, a := range chain.Authorities {
		cert.Certificate = append(cert.Certificate, a.Raw)
	}
	return &Session{server: c.server, http: httpClient(c.o.Roots, cert), now: c.o.Now, scope: ScopeDevice, auth: func(*http.Request) {},
		signer: s, turn: make(chan struct{}, 1)}, nil
}

// signer remembers why the last signature failed: crypto/tls keeps the text alone.
type signer struct {
	crypto.Signer
	failed atomic.Pointer[error]
}

func (s *signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := s.Signer.Sign(rand, digest, opts)
	if err != nil {
		s.failed.Store(&err)
		return nil, err
	}
	s.failed.Store(nil)
	return sig, nil
}

// Close ends idle connections.
func (s *Session) Close() { s.http.CloseIdleConnections() }

// Login gets a token now instead of at the first request.
func (s *Session) Login(ctx context.Context) error {
	_, err := s.bearer(ctx, "")
	return err
}

// bearer returns a token that is not the refused one.
func (s *Session) bearer(ctx context.Context, refused string) (string, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", ErrUnavailable.Because(ctx.Err())
	}
	if s.token != "" && s.token != refused && s.now().Before(s.until) {
		return s.token, nil
	}
	s.token = ""
	body, err := s.do(ctx, http.MethodPost, "/api/login", []byte("{}"), s.auth)
	if err != nil {
		return "", err
	}
	var r LoginReply
	if err := decode(body, maxReply, &r); err != nil {
		return "", ErrInvalidReply.Because(err)
	}
	if r.Scope != s.scope || r.Token == "" || len(r.Token) > maxHeader/2 || strings.ContainsFunc(r.Token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", ErrInvalidReply.With("a login for scope %s got scope %.16q", s.scope, r.Scope)
	}
	s.token, s.until = r.Token, s.now().Add(time.Duration(min(max(r.Expires, 1), 1<<31))*time.Second)
	return s.token, nil
}

func (s *Session) do(ctx context.Context, method, path string, body []byte, auth func(*http.Request)) ([]byte, error) {
	got, err := do(ctx, s.http, method, s.server+path, body, auth)
	if errors.Is(err, ErrUnavailable) && s.signer != nil {
		if why := s.signer.failed.Swap(nil); why != nil {
			return nil, ErrSigner.Because(*why)
		}
	}
	return got, err
}

// ask sends a request with a token, twice when the first is not taken any more.
func (s *Session) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	refused := ""
	for {
		token, err := s.bearer(ctx, refused)
		if err != nil {
			return nil, err
		}
		got, err := s.do(ctx, method, path, body, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
		if errors.Is(err, ErrBadCredentials) && refused == "" {
			refused = token
			continue
		}
		return got, err
	}
}

// Contacts returns the account's contacts as the server has them.
func (s *Session) Contacts(ctx context.Context) (Contacts, error) {
	return s.contacts(ctx, http.MethodGet, nil)
}

// Merge tells the account's contacts as this device knows them, and returns them as
// all devices do then.
func (s *Session) Merge(ctx context.Context, mine Contacts) (Contacts, error) {
	body, err := json.Marshal(mine)
	if err != nil {
		return nil, ErrInvalid.Because(err)
	}
	if len(mine) > MaxContacts || len(body) > MaxContactBody {
		return nil, ErrInvalid.With("%d contacts, %d are allowed", len(mine), MaxContacts)
	}
	return s.contacts(ctx, http.MethodPost, body)
}

func (s *Session) contacts(ctx context.Context, method string, body []byte) (Contacts, error) {
	got, err := s.ask(ctx, method, "/api/auth/contacts", body)
	if err != nil {
		return nil, err
	}
	all, err := ParseContacts(got)
	if err != nil {
		return nil, ErrInvalidReply.Because(err)
	}
	return all, nil
}

// Devices returns the account's devices, without the revoked ones.
func (s *Session) Devices(ctx context.Context) ([]Device, error) {
	got, err := s.ask(ctx, http.MethodGet, "/api/auth/devices", nil)
	if err != nil {
		return nil, err
	}
	return ParseDevices(got)
}

// Search looks for people in the organisation's directory.
func (s *Session) Search(ctx context.Context, text string) ([]Profile, error) {
	got, err := s.ask(ctx, http.MethodGet, "/api/auth/directory/search?queryString="+url.QueryEscape(text), nil)
	if err != nil {
		return nil, err
	}
	var p Profiles
	if err := decode(got, maxReply, &p); err != nil {
		return nil, ErrInvalidReply.Because(err)
	}
	return p.Profiles, nil
}

// Revoke ends a device of the user's account, for good.
func (s *Session) Revoke(ctx context.Context, device jami.LongID) error {
	got, err := s.ask(ctx, http.MethodDelete, "/api/auth/device/"+device.String(), nil)
	if err != nil || len(bytes.TrimSpace(got)) == 0 {
		return err
	}
	var r Refusal
	if err := decode(got, maxReply, &r); err != nil {
		return ErrInvalidReply.Because(err)
	}
	if r.ErrorDetails != "" {
		return ErrRefused.With("%.200q", r.ErrorDetails)
	}
	return nil
}
