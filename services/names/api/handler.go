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
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

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
	store   Store
	log     *zap.Logger
	metrics *Metrics
	mux     *http.ServeMux

	looking     limits.Addresses
	registering limits.Addresses
	slots       chan struct{}
}

// NewHandler returns the handler.
func NewHandler(s Store, log *zap.Logger, m *Metrics) *Handler {
	h := &Handler{store: s, log: log, metrics: m, mux: http.NewServeMux(), slots: make(chan struct{}, atOnce),
		looking:     limits.NewAddresses(lookupsPerSec, lookupsBurst),
		registering: limits.NewAddresses(registrationsPerSec, registrationsBurst)}
	h.mux.Handle("GET /name/{name}", h.bounded(opLookup, h.looking, h.lookup))
	h.mux.Handle("GET /addr/{addr}", h.bounded(opReverse, h.looking, h.reverse))
	h.mux.Handle("POST /name/{name}", h.bounded(opRegister, h.registering, h.register))
	return h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// answer is what a request comes to.
type answer struct {
	status int
	result string // for the metrics
	body   []byte
}

func refuse(status int, result, words string) answer {
	b, err := json.Marshal(map[string]any{"success": false, "error": words})
	if err != nil {
		panic(err) // texts alone
	}
	return answer{status, result, b}
}

// bounded answers, unless there is too much to answer.
func (h *Handler) bounded(op string, l limits.Addresses, fn func(*http.Request) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		var a answer
		if wait := l.Take(limits.ClientIP(r), began); wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
			a = refuse(http.StatusServiceUnavailable, resultLimited, "too many requests from your address")
		} else {
			select {
			case h.slots <- struct{}{}:
				a = h.work(fn, r)
			default:
				w.Header().Set("Retry-After", "1")
				a = refuse(http.StatusServiceUnavailable, resultBusy, "too many requests at once")
			}
		}
		w.Header().Set("Content-Type", "application/json")
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

func (h *Handler) lookup(r *http.Request) answer {
	name, err := names.Normalize(r.PathValue("name"))
	if err != nil {
		return refuse(http.StatusBadRequest, resultInvalid, err.Error())
	}
	return h.found(h.store.ByName(name))
}

func (h *Handler) reverse(r *http.Request) answer {
	addr, err := names.ParseAddr(r.PathValue("addr"))
	if err != nil {
		return refuse(http.StatusBadRequest, resultInvalid, err.Error())
	}
	return h.found(h.store.ByAddr(addr))
}

func (h *Handler) found(r names.Record, err error) answer {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuse(http.StatusNotFound, resultNotFound, err.Error())
	case err != nil:
		h.log.Error("look-up failed", zap.Error(err))
		return refuse(http.StatusInternalServerError, resultError, "the server can't read its names")
	}
	return answer{http.StatusOK, resultOK, r.Reply()}
}

func (h *Handler) register(r *http.Request) answer {
	if r.ContentLength > names.MaxBody {
		return refuse(http.StatusBadRequest, resultInvalid, "the body is too long")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, names.MaxBody+1)) // one more is too long to parse
	if err != nil {
		return refuse(http.StatusBadRequest, resultInvalid, "the body did not come whole")
	}
	rec, err := names.ParseRegistration(r.PathValue("name"), body)
	switch {
	case errors.Is(err, names.ErrBadSignature):
		return refuse(http.StatusUnauthorized, resultBadSignature, err.Error())
	case err != nil:
		return refuse(http.StatusBadRequest, resultInvalid, err.Error())
	}
	switch err := h.store.Register(&rec); {
	case errors.Is(err, store.ErrTaken), errors.Is(err, store.ErrHasName):
		return refuse(http.StatusForbidden, resultTaken, err.Error())
	case err != nil:
		h.log.Error("registration failed", zap.String("name", rec.Name), zap.Error(err))
		return refuse(http.StatusInternalServerError, resultError, "the server can't write the name down")
	}
	h.log.Info("registered", zap.String("name", rec.Name), zap.Stringer("addr", rec.Addr))
	return answer{http.StatusOK, resultOK, []byte(`{"success":true}`)}
}
