package jams

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// Bounds of what the operator is told at once.
const (
	// MaxPage is how many accounts an answer has.
	MaxPage = 100
	// MaxListed is how many devices of one account an answer has; the revoked ones
	// give way first, the oldest before the others.
	MaxListed = 128
)

// OperatorSocket returns the Unix socket on which the server of this directory
// answers its operator. Who may open it is the operator.
func OperatorSocket(dir string) string { return filepath.Join(dir, "operator.sock") }

// Account is an account as the operator sees it.
type Account struct {
	Name        string          `json:"name"`
	DisplayName string          `json:"displayName,omitempty"`
	Email       string          `json:"email,omitempty"`
	JamiID      string          `json:"id"`
	Created     time.Time       `json:"created"`
	Revoked     time.Time       `json:"revoked,omitzero"`
	Devices     []AccountDevice `json:"devices"`
	MoreDevices int             `json:"moreDevices,omitempty"` // revoked ones that are not listed
}

// AccountDevice is one of its devices.
type AccountDevice struct {
	Device
	Created time.Time `json:"created"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// AccountPage is a part of the list, by name.
type AccountPage struct {
	Accounts []Account `json:"accounts"`
	Total    int       `json:"total"`          // accounts that the query finds
	Next     string    `json:"next,omitempty"` // what the next page comes after; "" at the end
}

// Summary is the state of a server in few words.
type Summary struct {
	Accounts int   `json:"accounts"` // that are not revoked
	Devices  int   `json:"devices"`  // that are not revoked
	Changes  int64 `json:"changes"`  // another number when a list may have changed
}

// Operator asks a server on this machine what its operator may know and do. Besides
// those of a request its errors are [ErrUnavailable], of which [Absent] says whether
// there is a server at all. It is safe for concurrent use.
type Operator struct{ http *http.Client }

// NewOperator returns a client of the server whose socket this is.
func NewOperator(socket string) *Operator {
	return &Operator{&http.Client{Transport: &http.Transport{MaxConnsPerHost: 8, IdleConnTimeout: time.Minute,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}}
}

// Close ends idle connections.
func (o *Operator) Close() { o.http.CloseIdleConnections() }

// Absent reports whether err says that no server was started there, or that it has
// ended as it should.
func Absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// Denied reports whether err says that another user runs the server.
func Denied(err error) bool { return errors.Is(err, syscall.EACCES) }

func (o *Operator) ask(ctx context.Context, method, path string, into any) error {
	body, err := do(ctx, o.http, method, "http://jams"+path, nil, func(*http.Request) {})
	if err != nil {
		return err
	}
	if err := decode(body, maxReply, into); err != nil {
		return ErrInvalidReply.Because(err)
	}
	return nil
}

// Summary asks how many accounts there are.
func (o *Operator) Summary(ctx context.Context) (s Summary, err error) {
	return s, o.ask(ctx, http.MethodGet, "/summary", &s)
}

// Accounts lists at most limit accounts (1 to [MaxPage]) whose name comes after that
// one, revoked ones too. query is a part of a name, of a shown name or of an address,
// the beginning of a Jami Id, or the whole id of a device; "" finds all.
func (o *Operator) Accounts(ctx context.Context, query, after string, limit int) (p AccountPage, err error) {
	v := url.Values{"query": {query}, "after": {after}, "limit": {strconv.Itoa(limit)}}
	return p, o.ask(ctx, http.MethodGet, "/users?"+v.Encode(), &p)
}

// RevokeAccount ends an account for good.
func (o *Operator) RevokeAccount(ctx context.Context, name string) error {
	return o.ask(ctx, http.MethodDelete, "/users/"+url.PathEscape(name), &struct{}{})
}

// RevokeDevice ends a device of an account for good.
func (o *Operator) RevokeDevice(ctx context.Context, name string, id jami.LongID) error {
	return o.ask(ctx, http.MethodDelete, "/users/"+url.PathEscape(name)+"/devices/"+id.String(), &struct{}{})
}
