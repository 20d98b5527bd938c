package jams

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

const (
	// timeout is for one request. A server may have to make a key first, and lets
	// passwords take their time.
	timeout   = 30 * time.Second
	maxHeader = 16 << 10
)

// Options are what a [Client] needs.
type Options struct {
	Server string              // its URL; a host alone is asked by HTTPS, as stock Jami does
	Roots  *x509.CertPool      // who may certify the server; nil is the system's
	CAs    []*x509.Certificate // organisations whose accounts are taken; none: any
	Now    func() time.Time    // nil is [time.Now]
}

// Client speaks to one server. It is safe for concurrent use.
type Client struct {
	server string
	o      Options
	http   *http.Client
}

// New returns a client; nothing is sent before it is asked.
func New(o Options) (*Client, error) {
	server := o.Server
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrInvalid.with("the server is not an http:// or https:// URL")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Client{server: strings.TrimRight(u.String(), "/"), o: o, http: httpClient(o.Roots, nil)}, nil
}

func httpClient(roots *x509.CertPool, device *tls.Certificate) *http.Client {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if device != nil {
		// Whatever authorities the server names: it knows the device.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return device, nil }
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: timeout / 3}).DialContext, TLSClientConfig: conf,
			// Unpacking an answer could make it large.
			DisableCompression: true, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: timeout / 3, MaxResponseHeaderBytes: maxHeader, MaxConnsPerHost: 8, MaxIdleConns: 8, IdleConnTimeout: time.Minute,
		},
		// Passwords and tokens go where they were meant to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Enrolment is what a server gave to a device, checked.
type Enrolment struct {
	Chain      *trust.Chain
	PEM        []byte // the chain: device, account, authorities
	Receipt    *jami.Receipt
	NameServer string // URL; "" is none
	UserPhoto  string // base64
	Settings   map[string]string
}

// Enrol makes device a device of the user's account.
func (c *Client) Enrol(ctx context.Context, user, password, deviceName string, device crypto.Signer) (*Enrolment, error) {
	csr, err := NewCSR(device)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(EnrolRequest{CSR: string(csr), DeviceName: deviceName})
	if err != nil {
		return nil, ErrInvalid.because(err)
	}
	got, err := do(ctx, c.http, http.MethodPost, c.server+"/api/auth/device", body, basic(user, password))
	if err != nil {
		return nil, err
	}
	return c.enrolment(got, device.Public())
}

func (c *Client) enrolment(body []byte, device crypto.PublicKey) (*Enrolment, error) {
	r, err := ParseEnrolReply(body)
	if err != nil {
		return nil, ErrInvalidReply.because(err)
	}
	_, id, err := jami.PublicIDs(device)
	if err != nil {
		return nil, ErrInvalid.because(err)
	}
	rules := trust.Rules{Now: c.o.Now, Device: id, Roots: c.o.CAs}
	chain, err := rules.Parse([]byte(r.CertificateChain))
	if err != nil {
		return nil, ErrInvalidReply.because(err)
	}
	receipt, err := jami.ParseReceipt(r.DeviceReceipt, r.ReceiptSignature, chain.Device, chain.Account)
	if err != nil {
		return nil, ErrInvalidReply.because(err)
	}
	e := &Enrolment{Chain: chain, Receipt: receipt, NameServer: r.NameServer, UserPhoto: r.UserPhoto, Settings: r.Settings,
		PEM: jami.MarshalChain(append([]*x509.Certificate{chain.Device, chain.Account}, chain.Authorities...)...)}
	if strings.HasPrefix(e.NameServer, "/") {
		e.NameServer = c.server + e.NameServer
	}
	return e, nil
}

// Session speaks for a user or for a device. It logs in when it has to.
type Session struct {
	server string
	http   *http.Client
	now    func() time.Time
	scope  string
	auth   func(*http.Request) // of the login

	mu    sync.Mutex // held while logging in: others wait for the token
	token string
	until time.Time
}

// AsUser speaks for a user, who may revoke devices.
func (c *Client) AsUser(user, password string) *Session {
	return &Session{server: c.server, http: c.http, now: c.o.Now, scope: ScopeUser, auth: basic(user, password)}
}

// AsDevice speaks for a device with the key and the chain of its enrolment.
func (c *Client) AsDevice(key crypto.Signer, e *Enrolment) *Session {
	cert := &tls.Certificate{PrivateKey: key, Leaf: e.Chain.Device, Certificate: [][]byte{e.Chain.Device.Raw, e.Chain.Account.Raw}}
	for _, a := range e.Chain.Authorities {
		cert.Certificate = append(cert.Certificate, a.Raw)
	}
	return &Session{server: c.server, http: httpClient(c.o.Roots, cert), now: c.o.Now, scope: ScopeDevice, auth: func(*http.Request) {}}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" && s.token != refused && s.now().Before(s.until) {
		return s.token, nil
	}
	s.token = ""
	body, err := do(ctx, s.http, http.MethodPost, s.server+"/api/login", []byte("{}"), s.auth)
	if err != nil {
		return "", err
	}
	var r LoginReply
	if err := decode(body, maxReply, &r); err != nil {
		return "", ErrInvalidReply.because(err)
	}
	if r.Scope != s.scope || r.Token == "" || len(r.Token) > maxHeader/2 || strings.ContainsFunc(r.Token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", ErrInvalidReply.with("a login for scope %s got scope %.16q", s.scope, r.Scope)
	}
	s.token, s.until = r.Token, s.now().Add(time.Duration(min(max(r.Expires, 1), 1<<31))*time.Second)
	return s.token, nil
}

// ask sends a request with a token, twice when the first is not taken any more.
func (s *Session) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	refused := ""
	for {
		token, err := s.bearer(ctx, refused)
		if err != nil {
			return nil, err
		}
		got, err := do(ctx, s.http, method, s.server+path, body, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
		if errors.Is(err, ErrBadCredentials) && refused == "" {
			refused = token
			continue
		}
		return got, err
	}
}

// Contacts tells the account's contacts as this device knows them, and returns them
// as all devices do.
func (s *Session) Contacts(ctx context.Context, mine Contacts) (Contacts, error) {
	body, err := json.Marshal(mine)
	if err != nil {
		return nil, ErrInvalid.because(err)
	}
	got, err := s.ask(ctx, http.MethodPost, "/api/auth/contacts", body)
	if err != nil {
		return nil, err
	}
	all, err := ParseContacts(got)
	if err != nil {
		return nil, ErrInvalidReply.because(err)
	}
	return all, nil
}

// Devices returns the account's devices.
func (s *Session) Devices(ctx context.Context) ([]Device, error) {
	got, err := s.ask(ctx, http.MethodGet, "/api/auth/devices", nil)
	if err != nil {
		return nil, err
	}
	var list []Device
	if err := decode(got, maxReply, &list); err != nil {
		return nil, ErrInvalidReply.because(err)
	}
	return list, nil
}

// Search looks for people in the organisation's directory.
func (s *Session) Search(ctx context.Context, text string) ([]Profile, error) {
	got, err := s.ask(ctx, http.MethodGet, "/api/auth/directory/search?queryString="+url.QueryEscape(text), nil)
	if err != nil {
		return nil, err
	}
	var p Profiles
	if err := decode(got, maxReply, &p); err != nil {
		return nil, ErrInvalidReply.because(err)
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
		return ErrInvalidReply.because(err)
	}
	if r.ErrorDetails != "" {
		return ErrRefused.with("%.200q", r.ErrorDetails)
	}
	return nil
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

// do sends one request with the headers that stock Jami sends, and returns the body
// of a success.
func do(ctx context.Context, c *http.Client, method, url string, body []byte, auth func(*http.Request)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, ErrInvalid.because(err)
	}
	req.Header.Set("User-Agent", "Jami")
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	auth(req)
	resp, err := c.Do(req)
	if err != nil {
		return nil, ErrUnavailable.because(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1)) // one more is too long to parse
	if err != nil {
		return nil, ErrUnavailable.because(err)
	}
	if resp.StatusCode/100 == 2 {
		return got, nil
	}
	var why Refusal
	if decode(got, MaxBody, &why) != nil || why.ErrorDetails == "" {
		why.ErrorDetails = http.StatusText(resp.StatusCode)
	}
	e := map[int]*Error{
		http.StatusUnauthorized: ErrBadCredentials, http.StatusForbidden: ErrForbidden, http.StatusNotFound: ErrNotFound,
		http.StatusTooManyRequests: ErrLimited, http.StatusRequestTimeout: ErrUnavailable,
	}[resp.StatusCode]
	switch {
	case e != nil:
	case resp.StatusCode/100 == 4:
		e = ErrRefused
	default:
		e = ErrUnavailable
	}
	return nil, e.with("the server answers %d: %.200q", resp.StatusCode, why.ErrorDetails)
}
