// Package api is the HTTP side of the name server: what stock Jami asks
// (dht-and-identity §5.2), with bounds on how often and how much.
//
// # Answers
//
//	200  {"name","addr","publickey","signature"} to a look-up, {"success":true} to a registration
//	400  not a name, not an id; in a registration also: something is missing
//	401  the signature is not the account's over this name
//	403  another account has the name, or the account has another name
//	404  nobody has the name, the account has none
//	500  the server can't read or write its file
//	503  too much from this address, or too much at once; Retry-After says when again
//
// Stock Jami takes every 4xx for "not found" or "taken". What is neither is thus
// told by a 5xx, too many requests included.
package api

import (
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/services/names/store"
)

// What one address may ask. A person registers one name in a lifetime; behind one
// address there may be a school.
const (
	lookupsPerSec       = 50
	lookupsBurst        = 500
	registrationsPerSec = 0.1
	registrationsBurst  = 30
)

// Store is where names are kept. What it can't find is [store.ErrNotFound];
// Register refuses with [store.ErrTaken] and [store.ErrHasName].
type Store interface {
	ByName(name string) (names.Record, error)
	ByAddr(addr jami.ID) (names.Record, error)
	Register(r *names.Record) error
}

// atOnce bounds the requests that are worked on. A registration costs a check of
// a signature and a share of a sync, a look-up a read from memory.
const atOnce = 256

// Handler answers requests.
type Handler struct {
	*httpapi.API
	store   Store
	mux     *http.ServeMux
	looking limits.Addresses
}

// NewHandler returns the handler.
func NewHandler(s Store, log *zap.Logger, m *httpapi.Metrics) *Handler {
	h := &Handler{store: s, mux: http.NewServeMux(), looking: limits.NewAddresses(lookupsPerSec, lookupsBurst), API: httpapi.API{Log: log, Metrics: m, LimitedStatus: http.StatusServiceUnavailable,
		Refusal: func(_, words string) any { return map[string]any{"success": false, "error": words} }}.Bounded(atOnce)}
	registering := limits.NewAddresses(registrationsPerSec, registrationsBurst)
	h.mux.Handle("GET /name/{name}", h.Handle(opLookup, h.looking, h.lookup))
	h.mux.Handle("GET /addr/{addr}", h.Handle(opReverse, h.looking, h.reverse))
	h.mux.Handle("POST /name/{name}", h.Handle(opRegister, registering, h.register))
	return h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func (h *Handler) lookup(r *http.Request) httpapi.Answer {
	name, err := names.Normalize(r.PathValue("name"))
	if err != nil {
		return h.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
	}
	return h.found(h.store.ByName(name))
}

func (h *Handler) reverse(r *http.Request) httpapi.Answer {
	addr, err := names.ParseAddr(r.PathValue("addr"))
	if err != nil {
		return h.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
	}
	return h.found(h.store.ByAddr(addr))
}

func (h *Handler) found(r names.Record, err error) httpapi.Answer {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return h.Refuse(http.StatusNotFound, resultNotFound, err.Error())
	case err != nil:
		h.Log.Error("look-up failed", zap.Error(err))
		return h.Refuse(http.StatusInternalServerError, httpapi.Error, "the server can't read its names")
	}
	return httpapi.Answer{Status: http.StatusOK, Result: httpapi.OK, Body: r.Reply()}
}

func (h *Handler) register(r *http.Request) httpapi.Answer {
	body, no := h.Body(r, names.MaxBody)
	if no != nil {
		return *no
	}
	rec, err := names.ParseRegistration(r.PathValue("name"), body)
	switch {
	case errors.Is(err, names.ErrBadSignature):
		return h.Refuse(http.StatusUnauthorized, resultBadSignature, err.Error())
	case err != nil:
		return h.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
	}
	switch err := h.store.Register(&rec); {
	case errors.Is(err, store.ErrTaken), errors.Is(err, store.ErrHasName):
		return h.Refuse(http.StatusForbidden, resultTaken, err.Error())
	case err != nil:
		h.Log.Error("registration failed", zap.String("name", rec.Name), zap.Error(err))
		return h.Refuse(http.StatusInternalServerError, httpapi.Error, "the server can't write the name down")
	}
	h.Log.Info("registered", zap.String("name", rec.Name), zap.Stringer("addr", rec.Addr))
	return httpapi.Success(map[string]bool{"success": true})
}
