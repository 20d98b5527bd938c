package names

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// DefaultServer is the one that stock Jami asks.
const DefaultServer = "https://ns.jami.net"

// Bounds of one request.
const (
	timeout      = 10 * time.Second
	maxHeader    = 16 << 10
	maxRedirects = 3
)

// Options are what a [Client] needs.
type Options struct {
	Server    string            // its URL, http or https; "" is [DefaultServer]
	Transport http.RoundTripper // nil is a bounded one of its own
	Now       func() time.Time  // nil is [time.Now]
}

// Client asks a name server and remembers the answers. It is safe for concurrent
// use.
type Client struct {
	server string
	http   *http.Client
	cache  *cache
}

// New returns a client; nothing is sent before it is asked.
func New(o Options) (*Client, error) {
	if o.Server == "" {
		o.Server = DefaultServer
	}
	server, err := base(o.Server)
	if err != nil {
		return nil, err
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: timeout / 2}).DialContext,
			// An answer is small; unpacking one could make it large.
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    timeout / 2,
			MaxResponseHeaderBytes: maxHeader,
			MaxConnsPerHost:        8,
			MaxIdleConns:           8,
			IdleConnTimeout:        time.Minute,
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Client{
		server: server,
		http:   &http.Client{Transport: o.Transport, CheckRedirect: checkRedirect},
		cache:  newCache(o.Now),
	}, nil
}

// base is a server's URL without what follows the path. A host alone is asked by
// HTTPS, as stock Jami does.
func base(server string) (string, error) {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", ErrInvalidName.With("the server is not an http:// or https:// URL")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func checkRedirect(to *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return errors.New("redirected too often")
	case to.URL.Scheme != via[0].URL.Scheme:
		return errors.New("redirected to another scheme")
	case via[0].Method != http.MethodGet:
		return http.ErrUseLastResponse // a registration goes where it was meant to
	}
	return nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Lookup returns who has the name, which may be NAME@HOST. Nobody is [ErrNotFound].
func (c *Client) Lookup(ctx context.Context, text string) (Record, error) {
	name, host, err := split(text)
	if err != nil {
		return Record{}, err
	}
	server := c.server
	if host != "" {
		server = "https://" + host
	}
	return c.ask(ctx, cacheKey{cacheKeyName, server, name}, "/name/"+name, func(body []byte) (Record, error) {
		return ParseReply(name, body)
	})
}

// Reverse returns the name that the account has. None is [ErrNotFound].
func (c *Client) Reverse(ctx context.Context, id jami.ID) (Record, error) {
	return c.ask(ctx, cacheKey{cacheKeyAddr, c.server, id.String()}, "/addr/"+id.String(), func(body []byte) (Record, error) {
		r, err := ParseReply("", body)
		if err != nil {
			return Record{}, err
		}
		if !r.Addr.IsZero() && r.Addr != id {
			return Record{}, ErrInvalidReply.With("asked for %s, got %s", id, r.Addr)
		}
		r.Addr = id
		return r, nil
	})
}

func (c *Client) ask(ctx context.Context, k cacheKey, path string, parse func([]byte) (Record, error)) (Record, error) {
	if r, err, ok := c.cache.get(k); ok {
		return r, err
	}
	status, body, err := c.do(ctx, http.MethodGet, k.server+path, nil)
	if err != nil {
		return Record{}, err
	}
	var r Record
	switch {
	case status/100 == 2:
		r, err = parse(body)
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests:
		err = ErrUnavailable.With("%s", http.StatusText(status))
	case status/100 == 4:
		err = ErrNotFound
	default:
		err = ErrUnavailable.With("the server answers %d", status)
	}
	if err == nil || errors.Is(err, ErrNotFound) {
		c.cache.put(k, r, err)
	}
	return r, err
}

// Register makes the name the account's. owner is the account's Ethereum address
// ([jami.EthAddress]); account has the account's key, wherever that is. A name that
// the account has already is a success.
func (c *Client) Register(ctx context.Context, name, owner string, account crypto.Signer) error {
	r, err := Sign(name, account)
	if err != nil {
		return err
	}
	return c.RegisterSigned(ctx, &r, owner)
}

// RegisterSigned is [Client.Register] with what [Sign] made elsewhere. It is checked first.
func (c *Client) RegisterSigned(ctx context.Context, r *Record, owner string) error {
	if err := r.Verify(); err != nil {
		return err
	}
	status, body, err := c.do(ctx, http.MethodPost, c.server+"/name/"+r.Name, r.Registration(owner))
	if err != nil {
		return err
	}
	switch {
	case status/100 == 2:
		m, err := parse(body)
		if err != nil {
			return ErrInvalidReply.Because(err)
		}
		if !m.Success {
			return ErrUnavailable.With("the server answers %d but no success", status)
		}
	case status == http.StatusBadRequest:
		return ErrIncomplete.With("the server answers %d", status)
	case status == http.StatusUnauthorized:
		return ErrBadSignature.With("the server answers %d", status)
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests:
		return ErrUnavailable.With("%s", http.StatusText(status))
	case status/100 == 4:
		return ErrTaken
	default:
		return ErrUnavailable.With("the server answers %d", status)
	}
	c.cache.put(cacheKey{cacheKeyName, c.server, r.Name}, *r, nil)
	c.cache.put(cacheKey{cacheKeyAddr, c.server, r.Addr.String()}, *r, nil)
	return nil
}

// do sends one request with the headers that stock Jami sends.
func (c *Client) do(ctx context.Context, method, url string, body []byte) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, ErrInvalidName.Because(err)
	}
	req.Header.Set("User-Agent", "JamiDHT")
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		e := ErrUnavailable.With("the server speaks plain HTTP: write its URL with http://")
		e.Cause = err
		return 0, nil, e
	case err != nil:
		return 0, nil, ErrUnavailable.Because(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1)) // one more is too long to parse
	if err != nil {
		return 0, nil, ErrUnavailable.Because(err)
	}
	return resp.StatusCode, got, nil
}
