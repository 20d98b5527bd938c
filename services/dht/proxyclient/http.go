package proxyclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
)

// Times that a proxy has.
const (
	dialTime   = 5 * time.Second
	infoTime   = 5 * time.Second
	answerTime = 10 * time.Second // until the answer to a get or listen begins
	getTime    = 30 * time.Second // for a whole get
	putTime    = 30 * time.Second
	lineTime   = 30 * time.Second // from the first byte of a line to its end
)

// Bytes that a proxy may send.
const (
	maxHeader = 16 << 10
	maxInfo   = 16 << 10
	maxText   = 512 // of an error
	maxLine   = proxyjson.MaxValue
)

// newHTTP makes the client. ca is a PEM file, or empty.
func newHTTP(ca string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*http.Client, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("authority of the DHT proxies (setting dht.proxy_ca): %w", err)
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("authority of the DHT proxies (setting dht.proxy_ca): no certificate in %s", ca)
		}
	}
	if dial == nil {
		// A listener's connection is silent for as long as nothing changes; the kernel tells
		// when the other end is gone.
		alive := net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}
		dial = (&net.Dialer{Timeout: dialTime, KeepAliveConfig: alive}).DialContext
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: tc, TLSHandshakeTimeout: dialTime,
		MaxResponseHeaderBytes: maxHeader, DisableCompression: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		// HTTP/1.1 alone, as the API is: each listener has a connection of its own.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// statusError is an answer that is not 200.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the DHT proxy answered %d %s: %q", e.code, http.StatusText(e.code), e.text)
}

// errLate says that an answer does not begin, or a line does not end, in time.
var errLate = errors.New("the DHT proxy is too slow")

// shareKey is of a context that says how many proxies are still to be tried in its time.
type shareKey struct{}

func withShare(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, shareKey{}, n)
}

// share returns how long one proxy may take to begin its answer, at most d.
func share(ctx context.Context, d time.Duration) time.Duration {
	n, _ := ctx.Value(shareKey{}).(int)
	if end, ok := ctx.Deadline(); ok && n > 1 {
		d = min(d, time.Until(end)/time.Duration(n))
	}
	return d
}

// answer is the body of an answer. Close ends the request.
type answer struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (a *answer) Close() error {
	a.cancel(nil)
	return a.ReadCloser.Close()
}

// open sends a request and returns its answer, which has to begin within d, if that is
// 200.
func (n *Node) open(ctx context.Context, method, url string, body []byte, d time.Duration) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(share(ctx, d), func() { cancel(errLate) })
	defer late.Stop()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("DHT proxy: %w", err)
	}
	req.Header.Set("User-Agent", "Parley")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := n.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errLate) {
			err = cause
		}
		cancel(nil)
		return nil, fmt.Errorf("DHT proxy: %w", err)
	}
	a := &answer{resp.Body, cancel}
	what, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && err == nil && what == "application/json" {
		return a, nil
	}
	defer a.Close()
	if resp.StatusCode == http.StatusOK {
		return nil, fmt.Errorf("this is no DHT proxy: it answers with %q", what)
	}
	text, err := io.ReadAll(io.LimitReader(a, maxText)) // late still runs
	if err != nil {
		text = nil // what it said is of no use
	}
	if to := resp.Header.Get("Location"); to != "" && resp.StatusCode/100 == 3 {
		text = fmt.Appendf(nil, "redirect to %.200q, not followed", to)
	}
	return nil, &statusError{resp.StatusCode, strings.TrimSpace(string(text))}
}

// whole reads a small answer, which has to be there within d.
func (n *Node) whole(ctx context.Context, method, url string, body []byte, d time.Duration, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, share(ctx, d), errLate)
	defer cancel()
	a, err := n.open(ctx, method, url, body, d)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := io.ReadAll(io.LimitReader(a, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("DHT proxy: %w", err)
	case int64(len(b)) > limit:
		return nil, fmt.Errorf("DHT proxy: an answer of more than %d bytes", limit)
	}
	return b, nil
}

// info asks a proxy how it is.
func (n *Node) info(ctx context.Context, base string) (*proxyjson.NodeInfo, error) {
	b, err := n.whole(ctx, http.MethodGet, base+"/node/info", nil, infoTime, maxInfo)
	if err != nil {
		return nil, err
	}
	i, err := proxyjson.ParseNodeInfo(b)
	if err != nil {
		return nil, fmt.Errorf("DHT proxy: %w; is this one?", err)
	}
	if i.IPv4.Good < 0 || i.IPv6.Good < 0 {
		return nil, errors.New("DHT proxy: a negative number of peers")
	}
	return i, nil
}

func keyURL(base string, key overlay.Key) string { return base + "/key/" + hex.EncodeToString(key[:]) }

// post puts a value at a proxy. The error is a *finalError when no proxy would take it.
func (n *Node) post(ctx context.Context, base string, key overlay.Key, v *jami.Value, permanent bool) error {
	body, err := proxyjson.Put{Value: v, Permanent: permanent}.Marshal()
	if err != nil {
		return &finalError{err}
	}
	b, err := n.whole(ctx, http.MethodPost, keyURL(base, key), body, putTime, maxLine)
	var st *statusError
	switch {
	case errors.As(err, &st) && st.code == http.StatusBadRequest:
		return &finalError{fmt.Errorf("%w: %w", overlay.ErrRefused, st)}
	case errors.As(err, &st) && st.code == http.StatusRequestEntityTooLarge:
		return &finalError{fmt.Errorf("%w: %w", overlay.ErrTooLarge, st)}
	case err != nil:
		return err
	}
	l, err := proxyjson.ParseLine(b)
	if err != nil {
		return fmt.Errorf("DHT proxy: answer to a put: %w", err)
	}
	if l.Value.ID != v.ID {
		return errors.New("DHT proxy: it stored id " + strconv.FormatUint(l.Value.ID, 10) + ", not the one that was put")
	}
	return nil
}
