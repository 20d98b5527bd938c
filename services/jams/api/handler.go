// Package api is the HTTP side of the account server: what stock Jami asks of a
// server that hands out accounts (dht-and-identity §5.3), with bounds on how often
// and how much, and what the operator asks over a Unix socket.
//
// # Answers that are no success
//
//	400 invalid          what was sent can't be used
//	401 bad_credentials  user and password, certificate or token are not accepted
//	403 forbidden        revoked, another user's, too many, or the token's scope is too small
//	404 not_found        no such device or list
//	429 limited          too many failed logins or too many requests; Retry-After says when again
//	500 error            the server can't read or write its file
//	503 busy             too much at once, or the directory does not answer
//
// Each has {"code", "errorDetails"} as its body.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

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
	acc        *Accounts
	source     users.Source
	nameServer string
	log        *zap.Logger
	metrics    *Metrics
	mux        *http.ServeMux

	asking    limits.Addresses
	failing   limits.Addresses
	failsUser *limits.Limiter[string]
	slots     chan struct{}
}

// NewHandler returns the handler. nameServer is told to devices; "" is none.
func NewHandler(a *Accounts, source users.Source, nameServer string, log *zap.Logger, m *Metrics) *Handler {
	h := &Handler{acc: a, source: source, nameServer: nameServer, log: log, metrics: m, mux: http.NewServeMux(), slots: make(chan struct{}, atOnce),
		asking: limits.NewAddresses(requestsPerSec, requestsBurst), failing: limits.NewAddresses(failsPerSec, failsBurst),
		failsUser: limits.New[string](failsUserSec, failsUserBurst)}
	h.mux.Handle("POST /api/auth/device", h.bounded(opEnrol, h.enrol))
	h.mux.Handle("POST /api/login", h.bounded(opLogin, h.login))
	h.mux.Handle("POST /api/auth/contacts", h.bounded(opContacts, h.contacts))
	h.mux.Handle("GET /api/auth/contacts", h.bounded(opContacts, h.contacts))
	h.mux.Handle("GET /api/auth/devices", h.bounded(opDevices, h.devices))
	h.mux.Handle("GET /api/auth/directory/search", h.bounded(opSearch, h.search))
	h.mux.Handle("DELETE /api/auth/device/{id}", h.bounded(opRevoke, h.revoke))
	h.mux.Handle("GET /crl/{id}", h.bounded(opCRL, h.crl))
	return h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// answer is what a request comes to.
type answer struct {
	status int
	result string // for the metrics
	body   []byte
	kind   string        // content type; "" is JSON
	wait   time.Duration // for Retry-After
}

func refuse(status int, result, words string) answer {
	b, err := json.Marshal(jams.Refusal{Code: jams.Code(result), ErrorDetails: words})
	if err != nil {
		panic(err) // texts alone
	}
	return answer{status: status, result: result, body: b}
}

func limited(wait time.Duration, words string) answer {
	a := refuse(http.StatusTooManyRequests, resultLimited, words)
	a.wait = wait
	return a
}

func success(v any) answer {
	b, err := json.Marshal(v)
	if err != nil {
		return refuse(http.StatusInternalServerError, resultError, "the answer can't be written")
	}
	return answer{status: http.StatusOK, result: resultOK, body: b}
}

var (
	busy       = answer{status: http.StatusServiceUnavailable, result: resultBusy, body: refuse(0, resultBusy, "too much at once; try again").body, wait: time.Second}
	wrong      = refuse(http.StatusUnauthorized, resultCredentials, "user or password is wrong")
	wrongToken = refuse(http.StatusUnauthorized, resultCredentials, "log in again")
)

// bounded answers, unless there is too much to answer.
func (h *Handler) bounded(op string, fn func(*http.Request) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		var a answer
		if wait := h.asking.Take(limits.ClientIP(r), began); wait > 0 {
			a = limited(wait, "too many requests from your address")
		} else {
			select {
			case h.slots <- struct{}{}:
				a = h.work(fn, r)
			default:
				a = busy
			}
		}
		if a.wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(a.wait/time.Second)+1))
		}
		if a.kind == "" {
			a.kind = "application/json"
		}
		w.Header().Set("Content-Type", a.kind)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(a.status)
		if _, err := w.Write(a.body); err != nil {
			h.log.Debug("answer not sent", zap.Error(err))
		}
		h.metrics.count(op, a.result, time.Since(began))
	})
}

// work answers in a slot. A mistake of ours costs one request and is told in the log.
func (h *Handler) work(fn func(*http.Request) answer, r *http.Request) (a answer) {
	defer func() {
		<-h.slots
		if p := recover(); p != nil {
			h.log.Error("panic", zap.Any("value", p), zap.Stack("stack"))
			a = refuse(http.StatusInternalServerError, resultError, "a mistake in the server")
		}
	}()
	return fn(r)
}

// read returns the body, or nil and a refusal.
func read(r *http.Request, limit int) ([]byte, *answer) {
	no := refuse(http.StatusBadRequest, resultInvalid, "the body is too long")
	if r.ContentLength > int64(limit) {
		return nil, &no
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	switch {
	case err != nil:
		no = refuse(http.StatusBadRequest, resultInvalid, "the body did not come whole")
		return nil, &no
	case len(body) > limit:
		return nil, &no
	}
	return body, nil
}

// user authenticates by Basic. What is wrong is counted against the address and
// against the user, whether or not there is such a user.
func (h *Handler) user(r *http.Request) (users.User, *answer) {
	name, password, ok := r.BasicAuth()
	if !ok || password == "" || len(password) > jams.MaxPassword {
		return users.User{}, &wrong
	}
	ip, now := limits.ClientIP(r), time.Now()
	name, err := jams.UserName(name)
	if err != nil {
		h.failing.Take(ip, now)
		return users.User{}, &wrong
	}
	if wait := max(h.failing.Wait(ip, now), h.failsUser.Wait(name, now)); wait > 0 {
		a := limited(wait, "too many failed logins")
		return users.User{}, &a
	}
	u, err := h.source.Authenticate(r.Context(), name, password)
	switch {
	case err == nil:
		return u, nil
	case errors.Is(err, users.ErrCredentials):
		h.failing.Take(ip, now)
		h.failsUser.Take(name, now)
		h.log.Info("login refused", zap.String("user", name), zap.Stringer("address", ip))
		return users.User{}, &wrong
	case errors.Is(err, users.ErrBusy), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return users.User{}, &busy
	}
	a := refuse(http.StatusServiceUnavailable, resultBusy, "the users can't be asked now")
	return users.User{}, &a
}

func (h *Handler) enrol(r *http.Request) answer {
	body, no := read(r, jams.MaxBody)
	if no != nil {
		return *no
	}
	u, no := h.user(r)
	if no != nil {
		return *no
	}
	req, err := jams.ParseEnrolRequest(body)
	if err != nil {
		return refuse(http.StatusBadRequest, resultInvalid, err.Error())
	}
	pub, err := jams.ParseCSR([]byte(req.CSR))
	if err != nil {
		return refuse(http.StatusBadRequest, resultInvalid, err.Error())
	}
	chain, d, err := h.acc.enrol(r.Context(), u, pub, req.DeviceName)
	switch {
	case errors.Is(err, store.ErrOther), errors.Is(err, store.ErrRevoked), errors.Is(err, store.ErrTooMany):
		h.log.Info("device refused", zap.String("user", u.Name), zap.Error(err))
		return refuse(http.StatusForbidden, resultForbidden, "this device can't be added: it or the account is revoked, it is another user's, or there are too many")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return busy
	case err != nil:
		return h.failed("enrolment", err)
	}
	reply := jams.EnrolReply{CertificateChain: string(chain), DeviceReceipt: d.Receipt, ReceiptSignature: d.Sig, NameServer: h.nameServer}
	if u.DisplayName != "" {
		reply.Settings = map[string]string{"Account.displayName": u.DisplayName}
	}
	return success(reply)
}

func (h *Handler) failed(what string, err error) answer {
	h.log.Error(what+" failed", zap.Error(err))
	return refuse(http.StatusInternalServerError, resultError, "the server can't read or write its file")
}

// login gives a token to a user, or to the device whose certificate the TLS
// connection has: the handshake has shown that its key is there.
func (h *Handler) login(r *http.Request) answer {
	if _, no := read(r, jams.MaxBody); no != nil {
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
			return refuse(http.StatusForbidden, resultForbidden, "the account is revoked")
		}
		t.user = u.Name
	} else {
		scope = jams.ScopeDevice
		d, ok := h.device(r, now)
		if !ok {
			return refuse(http.StatusUnauthorized, resultCredentials, "no certificate of a device that may log in")
		}
		t.user, t.device = d.User, d.ID
	}
	return success(jams.LoginReply{Scope: scope, Token: h.acc.tokens.add(t, now), Expires: int64(tokenLife / time.Second)})
}

// device returns whose certificate the connection has. It has to be the very one
// that was issued, so that there is nothing about its chain to judge.
func (h *Handler) device(r *http.Request, now time.Time) (store.Device, bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return store.Device{}, false
	}
	c := r.TLS.PeerCertificates[0]
	_, id := jami.CertIDs(c)
	d, err := h.acc.store.Device(id)
	if err != nil || string(d.Cert) != string(c.Raw) || now.Before(c.NotBefore.Add(-time.Hour)) || now.After(c.NotAfter) {
		return store.Device{}, false
	}
	return d, h.mayGoOn(d.User, d)
}

func (h *Handler) mayGoOn(user string, d store.Device) bool {
	rec, ok := h.acc.store.Profile(user)
	return ok && rec.Revoked.IsZero() && d.Revoked.IsZero() && h.source.Active(user)
}

// bearer returns what the token allows.
func (h *Handler) bearer(r *http.Request) (token, *answer) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || len(text) > 256 {
		return token{}, &wrongToken
	}
	t, ok := h.acc.tokens.get(text, time.Now())
	if !ok || !h.source.Active(t.user) {
		return token{}, &wrongToken
	}
	// A login that was under way when the revocation came has a token all the same.
	if rec, ok := h.acc.store.Profile(t.user); ok && !rec.Revoked.IsZero() {
		return token{}, &wrongToken
	}
	if !t.isUser() {
		if d, err := h.acc.store.Device(t.device); err != nil || !d.Revoked.IsZero() {
			return token{}, &wrongToken
		}
	}
	return t, nil
}

func (h *Handler) contacts(r *http.Request) answer {
	t, no := h.bearer(r)
	if no != nil {
		return *no
	}
	in := jams.Contacts{}
	if r.Method == http.MethodPost {
		body, no := read(r, jams.MaxContactBody)
		if no != nil {
			return *no
		}
		var err error
		if in, err = jams.ParseContacts(body); err != nil {
			return refuse(http.StatusBadRequest, resultInvalid, err.Error())
		}
	}
	all, err := h.acc.store.Merge(t.user, in)
	switch {
	case errors.Is(err, store.ErrContacts):
		return refuse(http.StatusForbidden, resultForbidden, err.Error())
	case err != nil:
		return h.failed("merging contacts", err)
	}
	return success(all)
}

func (h *Handler) devices(r *http.Request) answer {
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
	return success(out)
}

func (h *Handler) search(r *http.Request) answer {
	if _, no := h.bearer(r); no != nil {
		return *no
	}
	text := strings.TrimSpace(r.URL.Query().Get("queryString"))
	if len(text) > jams.MaxDeviceName {
		return refuse(http.StatusBadRequest, resultInvalid, "the text is too long")
	}
	out := jams.Profiles{Profiles: []jams.Profile{}}
	if len(text) < searchMin {
		return success(out)
	}
	for _, u := range h.acc.store.Search(text, searchMax) {
		out.Profiles = append(out.Profiles, jams.Profile{Username: u.Name, JamiID: u.JamiID.String(), FirstName: u.DisplayName, Email: u.Email})
	}
	return success(out)
}

func (h *Handler) revoke(r *http.Request) answer {
	t, no := h.bearer(r)
	if no != nil {
		return *no
	}
	if !t.isUser() {
		return refuse(http.StatusForbidden, resultForbidden, "a device can't revoke; log in as the user")
	}
	id, ok := longID(r.PathValue("id"))
	if !ok {
		return refuse(http.StatusBadRequest, resultInvalid, "not a device's id of 64 hex digits")
	}
	switch err := h.acc.RevokeDevice(t.user, id); {
	case errors.Is(err, store.ErrNotFound):
		return refuse(http.StatusNotFound, resultNotFound, "the account has no such device")
	case err != nil:
		return h.failed("revocation", err)
	}
	return answer{status: http.StatusOK, result: resultOK, body: []byte("{}")}
}

// crl is open to all: who checks a chain needs it.
func (h *Handler) crl(r *http.Request) answer {
	var der []byte
	var err error
	if what := r.PathValue("id"); what == "ca" {
		der, err = h.acc.store.CACRL()
	} else {
		id, perr := jami.ParseID(what)
		if perr != nil {
			return refuse(http.StatusBadRequest, resultInvalid, perr.Error())
		}
		der, err = h.acc.store.CRL(id)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuse(http.StatusNotFound, resultNotFound, "nothing is revoked there")
	case err != nil:
		return h.failed("reading a revocation list", err)
	}
	return answer{status: http.StatusOK, result: resultOK, body: der, kind: "application/pkix-crl"}
}
