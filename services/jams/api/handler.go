// Package api is the HTTP side of the account server: what stock Jami asks of a
// server that hands out accounts (dht-and-identity §5.3), with bounds on how often
// and how much, and what the operator asks over a Unix socket.
//
// # Answers that are no success
//
//	400 invalid          what was sent can't be used
//	401 bad_credentials  user and password, certificate or token are not accepted
//	401 revoked          to a device: it or its account was ended for good
//	403 revoked          to a user with the right password, likewise
//	403 forbidden        another user's device, too many, or the token's scope is too small
//	404 not_found        no such device or list
//	429 limited          too many failed logins or too many requests; Retry-After says when again
//	500 error            the server can't read or write its file
//	503 busy             too much at once, or the directory does not answer
//
// Each has {"code", "errorDetails"} as its body.
package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/jams/store"
	"github.com/parley-jami/parley/services/jams/users"
)

// What one address may ask, and how often a password may be wrong. Behind one
// address there may be a school.
const (
	requestsPerSec = 20
	requestsBurst  = 400
	failsPerSec    = 0.1 // of one address
	failsBurst     = 30
	failsUserSec   = 1.0 / 30 // of one user from anywhere
	failsUserBurst = 10

	// atOnce bounds the requests that are worked on.
	atOnce = 128
	// searchMax is how many people a search finds.
	searchMax = 100
	searchMin = 2 // characters: a directory isn't handed out letter by letter
)

// Handler answers requests.
type Handler struct {
	*httpapi.API
	acc        *Accounts
	source     users.Source
	nameServer string
	mux        *http.ServeMux

	failing   limits.Addresses
	failsUser *limits.Limiter[string]
}

// NewHandler returns the handler. nameServer is told to devices; "" is none.
func NewHandler(a *Accounts, source users.Source, nameServer string, log *zap.Logger, m *httpapi.Metrics) *Handler {
	h := &Handler{acc: a, source: source, nameServer: nameServer, mux: http.NewServeMux(),
		failing: limits.NewAddresses(failsPerSec, failsBurst), failsUser: limits.New[string](failsUserSec, failsUserBurst),
		API: httpapi.API{Log: log, Metrics: m, LimitedStatus: http.StatusTooManyRequests,
			Refusal: func(result, words string) any { return jams.Refusal{Code: result, ErrorDetails: words} }}.Bounded(atOnce)}
	asking := limits.NewAddresses(requestsPerSec, requestsBurst)
	for _, route := range []struct {
		pattern, op string
		fn          func(*http.Request) httpapi.Answer
	}{
		{"POST /api/auth/device", opEnrol, h.enrol},
		{"POST /api/login", opLogin, h.login},
		{"POST /api/auth/contacts", opContacts, h.contacts},
		{"GET /api/auth/contacts", opContacts, h.contacts},
		{"GET /api/auth/devices", opDevices, h.devices},
		{"GET /api/auth/directory/search", opSearch, h.search},
		{"DELETE /api/auth/device/{id}", opRevoke, h.revoke},
		{"GET /crl/{id}", opCRL, h.crl},
	} {
		h.mux.Handle(route.pattern, h.Handle(route.op, asking, route.fn))
	}
	return h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func (h *Handler) wrong() *httpapi.Answer {
	x := h.Refuse(http.StatusUnauthorized, resultCredentials, "user or password is wrong")
	return &x
}

func (h *Handler) wrongToken() *httpapi.Answer {
	x := h.Refuse(http.StatusUnauthorized, resultCredentials, "log in again")
	return &x
}

// user authenticates by Basic. What is wrong is counted against the address and
// against the user, whether or not there is such a user.
func (h *Handler) user(r *http.Request) (users.User, *httpapi.Answer) {
	name, password, ok := r.BasicAuth()
	if !ok || password == "" || len(password) > jams.MaxPassword {
		return users.User{}, h.wrong()
	}
	ip, now := limits.ClientIP(r), time.Now()
	name, err := jams.UserName(name)
	if err != nil {
		h.failing.Take(ip, now)
		return users.User{}, h.wrong()
	}
	if wait := max(h.failing.Wait(ip, now), h.failsUser.Wait(name, now)); wait > 0 {
		a := h.TooMany(wait, "too many failed logins")
		return users.User{}, &a
	}
	u, err := h.source.Authenticate(r.Context(), name, password)
	switch {
	case err == nil:
		return u, nil
	case errors.Is(err, users.ErrCredentials):
		h.failing.Take(ip, now)
		h.failsUser.Take(name, now)
		h.Log.Info("login refused", zap.String("user", name), zap.Stringer("address", ip))
		return users.User{}, h.wrong()
	case errors.Is(err, users.ErrBusy), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		a := h.Busy()
		return users.User{}, &a
	}
	a := h.Refuse(http.StatusServiceUnavailable, httpapi.Busy, "the users can't be asked now")
	return users.User{}, &a
}

func (h *Handler) enrol(r *http.Request) httpapi.Answer {
	body, no := h.Body(r, jams.MaxBody)
	if no != nil {
		return *no
	}
	u, no := h.user(r)
	if no != nil {
		return *no
	}
	req, err := jams.ParseEnrolRequest(body)
	if err != nil {
		return h.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
	}
	pub, err := jams.ParseCSR([]byte(req.CSR))
	if err != nil {
		return h.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
	}
	chain, d, err := h.acc.enrol(r.Context(), u, pub, req.DeviceName)
	switch {
	case errors.Is(err, store.ErrRevoked):
		h.Log.Info("device refused", zap.String("user", u.Name), zap.Error(err))
		return h.Refuse(http.StatusForbidden, resultRevoked, "the device or the account is revoked")
	case errors.Is(err, store.ErrOther), errors.Is(err, store.ErrTooMany):
		h.Log.Info("device refused", zap.String("user", u.Name), zap.Error(err))
		return h.Refuse(http.StatusForbidden, resultForbidden, "this device can't be added: it is another user's, or there are too many")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return h.Busy()
	case err != nil:
		return h.failed("enrolment", err)
	}
	reply := jams.EnrolReply{CertificateChain: string(chain), DeviceReceipt: d.Receipt, ReceiptSignature: d.Sig, NameServer: h.nameServer}
	if u.DisplayName != "" {
		reply.Settings = map[string]string{"Account.displayName": u.DisplayName}
	}
	return httpapi.Success(reply)
}

func (h *Handler) failed(what string, err error) httpapi.Answer {
	h.Log.Error(what+" failed", zap.Error(err))
	return h.Refuse(http.StatusInternalServerError, httpapi.Error, "the server can't read or write its file")
}

// login gives a token to a user, or to the device whose certificate the TLS
// connection has: the handshake has shown that its key is there.
func (h *Handler) login(r *http.Request) httpapi.Answer {
	if _, no := h.Body(r, jams.MaxBody); no != nil {
		return *no
	}
	now := time.Now()
	t, scope := token{}, jams.ScopeUser
	if r.Header.Get("Authorization") != "" {
		u, no := h.user(r)
		if no != nil {
			return *no
		}
		if rec, ok := h.acc.store.Profile(u.Name); ok && !rec.Revoked.IsZero() {
			return h.Refuse(http.StatusForbidden, resultRevoked, "the account is revoked")
		}
		t.user = u.Name
	} else {
		scope = jams.ScopeDevice
		d, no := h.device(r, now)
		if no != nil {
			return *no
		}
		t.user, t.device = d.User, d.ID
	}
	return httpapi.Success(jams.LoginReply{Scope: scope, Token: h.acc.tokens.add(t, now), Expires: int64(tokenLife / time.Second)})
}

// device returns whose certificate the connection has. It has to be the very one
// that was issued, so that there is nothing about its chain to judge. Who has its key
// is told when it was revoked: a client has to know that it is for good.
func (h *Handler) device(r *http.Request, now time.Time) (store.Device, *httpapi.Answer) {
	no := h.Refuse(http.StatusUnauthorized, resultCredentials, "no certificate of a device that may log in")
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return store.Device{}, &no
	}
	c := r.TLS.PeerCertificates[0]
	_, id := jami.CertIDs(c)
	d, err := h.acc.store.Device(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return store.Device{}, &no
	case err != nil:
		no = h.failed("reading a device", err)
		return store.Device{}, &no
	case string(d.Cert) != string(c.Raw), now.Before(c.NotBefore.Add(-time.Hour)), now.After(c.NotAfter):
		return store.Device{}, &no
	}
	rec, ok := h.acc.store.Profile(d.User)
	switch {
	case !d.Revoked.IsZero(), ok && !rec.Revoked.IsZero():
		no = h.Refuse(http.StatusUnauthorized, resultRevoked, "the device or its account is revoked")
	case ok && h.source.Active(d.User):
		return d, nil
	}
	return store.Device{}, &no
}

// bearer returns what the token allows.
func (h *Handler) bearer(r *http.Request) (token, *httpapi.Answer) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || len(text) > 256 {
		return token{}, h.wrongToken()
	}
	t, ok := h.acc.tokens.get(text, time.Now())
	if !ok || !h.source.Active(t.user) {
		return token{}, h.wrongToken()
	}
	// A login that was under way when the revocation came has a token all the same.
	if rec, ok := h.acc.store.Profile(t.user); ok && !rec.Revoked.IsZero() {
		return token{}, h.wrongToken()
	}
	if !t.isUser() {
		if d, err := h.acc.store.Device(t.device); err != nil || !d.Revoked.IsZero() {
			return token{}, h.wrongToken()
		}
	}
	return t, nil
}

func (h *Handler) contacts(r *http.Request) httpapi.Answer {
	t, no := h.bearer(r)
	if no != nil {
		return *no
	}
	in := jams.Contacts{}
	if r.Method == http.MethodPost {
		body, no := h.Body(r, jams.MaxContactBody)
		if no != nil {
			return *no
		}
		var err error
		if in, err = jams.ParseContacts(body); err != nil {
			return h.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
		}
	}
	all, err := h.acc.store.Merge(t.user, in)
	switch {
	case errors.Is(err, store.ErrContacts):
		return h.Refuse(http.StatusForbidden, resultForbidden, err.Error())
	case err != nil:
		return h.failed("merging contacts", err)
	}
	return httpapi.Success(all)
}

func (h *Handler) devices(r *http.Request) httpapi.Answer {
	t, no := h.bearer(r)
	if no != nil {
		return *no
	}
	list, err := h.acc.store.Devices(t.user)
	if err != nil {
		return h.failed("listing devices", err)
	}
	out := []jams.Device{}
	for _, d := range list {
		if d.Revoked.IsZero() {
			out = append(out, jams.Device{ID: d.ID.String(), Alias: d.Alias})
		}
	}
	return httpapi.Success(out)
}

func (h *Handler) search(r *http.Request) httpapi.Answer {
	if _, no := h.bearer(r); no != nil {
		return *no
	}
	text := strings.TrimSpace(r.URL.Query().Get("queryString"))
	if len(text) > jams.MaxDeviceName {
		return h.Refuse(http.StatusBadRequest, httpapi.Invalid, "the text is too long")
	}
	out := jams.Profiles{Profiles: []jams.Profile{}}
	if len(text) < searchMin {
		return httpapi.Success(out)
	}
	for _, u := range h.acc.store.Search(text, searchMax) {
		out.Profiles = append(out.Profiles, jams.Profile{Username: u.Name, JamiID: u.JamiID.String(), FirstName: u.DisplayName, Email: u.Email})
	}
	return httpapi.Success(out)
}

func (h *Handler) revoke(r *http.Request) httpapi.Answer {
	t, no := h.bearer(r)
	if no != nil {
		return *no
	}
	if !t.isUser() {
		return h.Refuse(http.StatusForbidden, resultForbidden, "a device can't revoke; log in as the user")
	}
	id, err := jams.ParseDeviceID(r.PathValue("id"))
	if err != nil {
		return h.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
	}
	switch err := h.acc.RevokeDevice(t.user, id); {
	case errors.Is(err, store.ErrNotFound):
		return h.Refuse(http.StatusNotFound, resultNotFound, "the account has no such device")
	case err != nil:
		return h.failed("revocation", err)
	}
	return httpapi.Success(struct{}{})
}

// crl is open to all: who checks a chain needs it.
func (h *Handler) crl(r *http.Request) httpapi.Answer {
	var der []byte
	var err error
	if what := r.PathValue("id"); what == "ca" {
		der, err = h.acc.store.CACRL()
	} else {
		id, perr := jami.ParseID(what)
		if perr != nil {
			return h.Refuse(http.StatusBadRequest, httpapi.Invalid, perr.Error())
		}
		der, err = h.acc.store.CRL(id)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return h.Refuse(http.StatusNotFound, resultNotFound, "nothing is revoked there")
	case err != nil:
		return h.failed("reading a revocation list", err)
	}
	return httpapi.Answer{Status: http.StatusOK, Result: httpapi.OK, Body: der, Type: "application/pkix-crl"}
}
