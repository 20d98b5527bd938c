package httpapi

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
)

// Stream answers by fn, which may write for as long as it likes, unless there is too
// much of the address or, when places is not nil, too many at once. fn returns a refusal
// before it has written anything, or nil, and then what it came to.
func (a *API) Stream(op string, l limits.Addresses, places *limits.Places, fn func(http.ResponseWriter, *http.Request) (result string, refusal *Answer)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, ip := time.Now(), limits.ClientIP(r)
		refuse := func(x Answer) {
			a.send(w, x)
			a.Metrics.count(op, x.Result, time.Since(began))
		}
		if wait := l.Take(ip, began); wait > 0 {
			refuse(a.TooMany(wait, "too many requests from your address"))
			return
		}
		if places != nil {
			if !places.Take(ip) {
				refuse(a.Busy())
				return
			}
			defer places.Free(ip)
		}
		t := &tracked{ResponseWriter: w}
		result, no := a.stream(fn, t, r)
		switch {
		case no != nil && !t.wrote:
			refuse(*no)
		case no != nil:
			a.Metrics.count(op, no.Result, time.Since(began))
			panic(http.ErrAbortHandler) // so that the answer does not look whole
		default:
			a.Metrics.count(op, result, time.Since(began))
		}
	})
}

// stream turns a mistake of ours into a refusal.
func (a *API) stream(fn func(http.ResponseWriter, *http.Request) (string, *Answer), w http.ResponseWriter, r *http.Request) (result string, no *Answer) {
	defer func() {
		if p := recover(); p != nil {
			a.Log.Error("panic", zap.Any("value", p), zap.Stack("stack"))
			x := a.Refuse(http.StatusInternalServerError, Error, "a mistake in the server")
			result, no = Error, &x
		}
	}()
	return fn(w, r)
}

// tracked knows whether something was written.
type tracked struct {
	http.ResponseWriter
	wrote bool
}

func (t *tracked) WriteHeader(status int) {
	t.wrote = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(b []byte) (int, error) {
	t.wrote = true
	return t.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
