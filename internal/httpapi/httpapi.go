// Package httpapi is what the servers beside a node have in common: requests are
// bounded by address and in all, each comes to an [Answer] that is counted, a panic
// costs one request, and the server ends when what has come is answered.
package httpapi

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
)

// Results of requests that every API has; an API adds its own.
const (
	OK      = "ok"
	Invalid = "invalid"
	Limited = "limited"
	Busy    = "busy"
	Error   = "error"
)

// Answer is what a request comes to.
type Answer struct {
	Status int
	Result string // for the metrics; of a refusal its code
	Body   []byte
	Type   string        // of the body; "" is JSON
	Wait   time.Duration // for Retry-After; 0 is none
}

// Success answers with v as JSON.
func Success(v any) Answer {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types, which can be written
	}
	return Answer{Status: http.StatusOK, Result: OK, Body: b}
}

// API says how an API refuses.
type API struct {
	Log     *zap.Logger
	Metrics *Metrics
	// Refusal is the body of an answer that is no success.
	Refusal func(result, words string) any
	// LimitedStatus is that of too many requests: 429, or what the clients take for it.
	LimitedStatus int

	slots chan struct{}
}

// Bounded lets so many requests be worked on at once.
func (a API) Bounded(atOnce int) *API {
	a.slots = make(chan struct{}, atOnce)
	return &a
}

// Refuse is an answer that is no success.
func (a *API) Refuse(status int, result, words string) Answer {
	x := Success(a.Refusal(result, words))
	x.Status, x.Result = status, result
	return x
}

// TooMany refuses for so long.
func (a *API) TooMany(wait time.Duration, words string) Answer {
	x := a.Refuse(a.LimitedStatus, Limited, words)
	x.Wait = wait
	return x
}

// Busy refuses what is too much at once.
func (a *API) Busy() Answer {
	x := a.Refuse(http.StatusServiceUnavailable, Busy, "too much at once; try again")
	x.Wait = time.Second
	return x
}

// Handle answers by fn, unless there is too much of the address or in all.
func (a *API) Handle(op string, l limits.Addresses, fn func(*http.Request) Answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		var x Answer
		if wait := l.Take(limits.ClientIP(r), began); wait > 0 {
			x = a.TooMany(wait, "too many requests from your address")
		} else {
			select {
			case a.slots <- struct{}{}:
				x = a.work(fn, r)
			default:
				x = a.Busy()
			}
		}
		a.send(w, x)
		a.Metrics.count(op, x.Result, time.Since(began))
	})
}

func (a *API) send(w http.ResponseWriter, x Answer) {
	h := w.Header()
	if x.Wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(x.Wait/time.Second)+1))
	}
	if x.Type == "" {
		x.Type = "application/json"
	}
	h.Set("Content-Type", x.Type)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(x.Status)
	if _, err := w.Write(x.Body); err != nil {
		a.Log.Debug("answer not sent", zap.Error(err))
	}
}

// work answers in a slot. A mistake of ours costs one request and is told in the log.
func (a *API) work(fn func(*http.Request) Answer, r *http.Request) (x Answer) {
	defer func() {
		<-a.slots
		if p := recover(); p != nil {
			a.Log.Error("panic", zap.Any("value", p), zap.Stack("stack"))
			x = a.Refuse(http.StatusInternalServerError, Error, "a mistake in the server")
		}
	}()
	return fn(r)
}

// Body returns the request's body of at most limit bytes, or a refusal.
func (a *API) Body(r *http.Request, limit int) (body []byte, no *Answer) {
	refuse := func(words string) ([]byte, *Answer) {
		x := a.Refuse(http.StatusBadRequest, Invalid, words)
		return nil, &x
	}
	if r.ContentLength > int64(limit) {
		return refuse("the body is too long")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	switch {
	case err != nil:
		return refuse("the body did not come whole")
	case len(body) > limit:
		return refuse("the body is too long")
	}
	return body, nil
}
