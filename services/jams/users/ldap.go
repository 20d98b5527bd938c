package users

import (
	"context"
	"crypto/tls"
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
	// userMark stands for the user's name in the DN.
	userMark = "{user}"
)

// LDAPOptions say which directory.
type LDAPOptions struct {
	URL    string      // ldap:// (with StartTLS) or ldaps://
	UserDN string      // "uid={user},ou=people,dc=example,dc=org"
	TLS    *tls.Config // nil: the system's authorities
	Plain  bool        // ldap:// without StartTLS: passwords travel in clear
}

// LDAP is a [Source]: it binds as the user, which is all the directory has to allow.
type LDAP struct {
	o     LDAPOptions
	log   *zap.Logger
	slots chan struct{}
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
	return &LDAP{o: o, log: log, slots: make(chan struct{}, ldapAtOnce)}, nil
}

// Active is of [Source]: a directory is only asked with a password.
func (*LDAP) Active(string) bool { return true }

// Authenticate is of [Source].
func (l *LDAP) Authenticate(ctx context.Context, name, password string) (User, error) {
	// Without a password a bind is anonymous and succeeds (RFC 4513 §5.1.2).
	if password == "" {
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
	l.log.Warn("ldap", zap.Error(err))
	return User{}, fmt.Errorf("%w: ldap", ErrUnavailable)
}

func (l *LDAP) bind(ctx context.Context, name, password string) (u User, err error) {
	c, err := ldap.DialURL(l.o.URL, ldap.DialWithDialer(&net.Dialer{Timeout: ldapTimeout}), ldap.DialWithTLSConfig(l.o.TLS))
	if err != nil {
		return u, err
	}
	defer c.Close()                                      // an error: it is closed already
	stop := context.AfterFunc(ctx, func() { c.Close() }) // an error: it is closed already
	defer stop()
	c.SetTimeout(ldapTimeout)
	if strings.HasPrefix(l.o.URL, "ldap:") && !l.o.Plain {
		if err := c.StartTLS(l.o.TLS); err != nil {
			return u, err
		}
	}
	dn := strings.Replace(l.o.UserDN, userMark, ldap.EscapeDN(name), 1)
	if err := c.Bind(dn, password); err != nil {
		return u, err
	}
	u.Name = name
	// Who may bind may not always read: then there is a name alone.
	res, err := c.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, int(ldapTimeout/time.Second), false,
		"(objectClass=*)", []string{"displayName", "cn", "mail"}, nil))
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
