package users

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jams"
)

const (
	ldapTimeout = 10 * time.Second
	ldapAtOnce  = 32
	ldapMax     = 1 << 20 // bytes of answers, with a handshake, in one login
	// userMark stands for the user's name in the DN.
	userMark = "{user}"
)

// LDAPOptions say which directory.
type LDAPOptions struct {
	URL    string      // ldap:// (with StartTLS) or ldaps://
	UserDN string      // "uid={user},ou=people,dc=example,dc=org"
	TLS    *tls.Config // nil: the system's authorities
	Plain  bool        // ldap:// without StartTLS: passwords travel in clear

	Timeout time.Duration // of one login as a whole; 0: 10 s
}

// secure is how a password is kept from others on its way.
type secure int

const (
	securePlain secure = iota
	secureStartTLS
	secureTLS
)

// LDAP is a [Source]: it binds as the user, which is all the directory has to allow.
type LDAP struct {
	o      LDAPOptions
	addr   string // host:port
	secure secure
	log    *zap.Logger
	slots  chan struct{}
}

// NewLDAP checks the options; nobody is asked yet.
func NewLDAP(o LDAPOptions, log *zap.Logger) (*LDAP, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Host == "" {
		return nil, fmt.Errorf("ldap: %q is not an ldap:// or ldaps:// URL", o.URL)
	}
	if strings.Count(o.UserDN, userMark) != 1 {
		return nil, fmt.Errorf("ldap: the DN %q has to have %s once", o.UserDN, userMark)
	}
	if _, err := ldap.ParseDN(strings.Replace(o.UserDN, userMark, "a", 1)); err != nil {
		return nil, fmt.Errorf("ldap: the DN %q: %w", o.UserDN, err)
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{}
	}
	o.TLS = o.TLS.Clone()
	o.TLS.MinVersion = tls.VersionTLS12
	if o.TLS.ServerName == "" {
		o.TLS.ServerName = u.Hostname()
	}
	if o.Timeout == 0 {
		o.Timeout = ldapTimeout
	}
	l := &LDAP{o: o, secure: secureStartTLS, log: log, slots: make(chan struct{}, ldapAtOnce)}
	port := ldap.DefaultLdapPort
	switch {
	case u.Scheme == "ldaps":
		l.secure, port = secureTLS, ldap.DefaultLdapsPort
	case o.Plain:
		l.secure = securePlain
	}
	if u.Port() != "" {
		port = u.Port()
	}
	l.addr = net.JoinHostPort(u.Hostname(), port)
	return l, nil
}

// dial connects; whatever the library does with the connection ends with ctx.
func (l *LDAP) dial(ctx context.Context) (*ldap.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) }) // an error: it is closed already
	conn := net.Conn(&bounded{Conn: raw, left: ldapMax, stop: stop})
	if l.secure == secureTLS {
		t := tls.Client(conn, l.o.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = t
	}
	c := ldap.NewConn(conn, l.secure == secureTLS)
	c.SetTimeout(l.o.Timeout)
	c.Start()
	return c, nil
}

// bounded is a connection from which no more than left bytes are read.
type bounded struct {
	net.Conn
	left int
	stop func() bool
}

var errTooLong = errors.New("the directory's answer is too long")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (b *bounded) Close() error {
	b.stop()
	return b.Conn.Close()
}

// Active is of [Source]: a directory is only asked with a password.
func (*LDAP) Active(string) bool { return true }

// Authenticate is of [Source].
func (l *LDAP) Authenticate(ctx context.Context, name, password string) (User, error) {
	// Without a password a bind is anonymous and succeeds (RFC 4513 §5.1.2). A name of
	// another form could be the same one to a directory: it compares without case, and
	// without spaces at the ends (RFC 4518 §2.6.1).
	if same, err := jams.UserName(name); password == "" || err != nil || same != name {
		return User{}, ErrCredentials
	}
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	default:
		return User{}, ErrBusy
	}
	u, err := l.bind(ctx, name, password)
	switch {
	case err == nil:
		return u, nil
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax,
		ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultConstraintViolation, ldap.LDAPResultInsufficientAccessRights):
		return User{}, ErrCredentials
	}
	// A referral is not followed: passwords go where the operator said.
	l.log.Warn("the directory can't be asked", zap.Error(err))
	return User{}, fmt.Errorf("%w: ldap", ErrUnavailable)
}

func (l *LDAP) bind(ctx context.Context, name, password string) (u User, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	c, err := l.dial(ctx)
	if err != nil {
		return u, err
	}
	defer c.Close() // an error: it is closed already
	if l.secure == secureStartTLS {
		if err := c.StartTLS(l.o.TLS); err != nil {
			return u, fmt.Errorf("StartTLS: %w (jams.ldap_plain does without)", err)
		}
	}
	dn := strings.Replace(l.o.UserDN, userMark, ldap.EscapeDN(name), 1)
	if err := c.Bind(dn, password); err != nil {
		return u, err
	}
	u.Name = name
	// Who may bind may not always read: then there is a name alone.
	res, err := c.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, int(l.o.Timeout/time.Second), false,
		"(objectClass=*)", []string{"displayName", "cn", "mail"}, nil))
	if ldap.IsErrorWithCode(err, ldap.ErrorNetwork) || ctx.Err() != nil {
		return u, errors.Join(err, ctx.Err())
	}
	if err != nil || len(res.Entries) != 1 {
		l.log.Debug("ldap: the user's entry can't be read", zap.Error(err))
		return u, nil
	}
	e := res.Entries[0]
	u.DisplayName = e.GetAttributeValue("displayName")
	if u.DisplayName == "" {
		u.DisplayName = e.GetAttributeValue("cn")
	}
	u.DisplayName, u.Email = jams.Printable(u.DisplayName, jams.MaxDeviceName), jams.Printable(e.GetAttributeValue("mail"), jams.MaxDeviceName)
	return u, nil
}
