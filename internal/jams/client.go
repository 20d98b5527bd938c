package jams

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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
		return nil, ErrInvalid.With("the server is not an http:// or https:// URL")
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
		return nil, ErrInvalid.Because(err)
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
		return nil, ErrInvalidReply.Because(err)
	}
	_, id, err := jami.PublicIDs(device)
	if err != nil {
		return nil, ErrInvalid.Because(err)
	}
	rules := trust.Rules{Now: c.o.Now, Device: id, Roots: c.o.CAs}
	chain, err := rules.Parse([]byte(r.CertificateChain))
	if err != nil {
		return nil, ErrInvalidReply.Because(err)
	}
	receipt, err := jami.ParseReceipt(r.DeviceReceipt, r.ReceiptSignature, chain.Device, chain.Account)
	if err != nil {
		return nil, ErrInvalidReply.Because(err)
	}
	e := &Enrolment{Chain: chain, Receipt: receipt, NameServer: r.NameServer, UserPhoto: r.UserPhoto, Settings: r.Settings,
		PEM: jami.MarshalChain(append([]*x509.Certificate{chain.Device, chain.Account}, chain.Authorities...)...)}
	if strings.HasPrefix(e.NameServer, "/") {
		e.NameServer = c.server + e.NameServer
	}
	return e, nil
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
		return nil, ErrInvalid.Because(err)
	}
	req.Header.Set("User-Agent", "Jami")
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	auth(req)
	// What is asked for twice comes to the same: a connection that the server closed
	// meanwhile is no reason to fail. The header is not sent.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.Do(req)
	if err != nil {
		return nil, ErrUnavailable.Because(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1)) // one more is too long to parse
	if err != nil {
		return nil, ErrUnavailable.Because(err)
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
	case why.Code == string(ErrRevoked.Code) && (e == ErrBadCredentials || e == ErrForbidden):
		e = ErrRevoked
	case e != nil:
	case resp.StatusCode/100 == 4:
		e = ErrRefused
	default:
		e = ErrUnavailable
	}
	e = e.With("the server answers %d: %.200q", resp.StatusCode, why.ErrorDetails)
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.Cause = later(min(time.Duration(s)*time.Second, maxWait))
	}
	return nil, e
}
