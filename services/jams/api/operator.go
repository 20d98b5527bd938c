package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/services/jams/store"
)

// Operator answers what the operator asks over a Unix socket that is his alone, see
// [jams.Operator]:
//
//	GET    /summary                             how many there are
//	GET    /users?query=TEXT&after=NAME&limit=N accounts with their devices
//	DELETE /users/NAME                          revokes an account
//	DELETE /users/NAME/devices/ID               revokes a device
func Operator(a *Accounts) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /summary", func(w http.ResponseWriter, _ *http.Request) {
		n, m := a.store.Counts()
		operatorAnswer(w, a, jams.Summary{Accounts: n, Devices: m, Changes: a.store.Changes()}, nil)
	})
	mux.HandleFunc("GET /users", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		limit, err := strconv.Atoi(q.Get("limit"))
		if err != nil || limit < 1 || limit > jams.MaxPage {
			limit = jams.MaxPage
		}
		page, err := a.List(q.Get("query"), q.Get("after"), limit)
		operatorAnswer(w, a, page, err)
	})
	mux.HandleFunc("DELETE /users/{name}", func(w http.ResponseWriter, r *http.Request) {
		name, err := jams.UserName(r.PathValue("name"))
		if err == nil {
			err = a.RevokeUser(name)
		}
		operatorAnswer(w, a, struct{}{}, err)
	})
	mux.HandleFunc("DELETE /users/{name}/devices/{id}", func(w http.ResponseWriter, r *http.Request) {
		name, err := jams.UserName(r.PathValue("name"))
		id, err2 := jams.ParseDeviceID(r.PathValue("id"))
		if err = errors.Join(err, err2); err == nil {
			err = a.RevokeDevice(name, id)
		}
		operatorAnswer(w, a, struct{}{}, err)
	})
	return mux
}

func operatorAnswer(w http.ResponseWriter, a *Accounts, v any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, jams.ErrInvalid):
		status, v = http.StatusNotFound, jams.Refusal{Code: resultNotFound, ErrorDetails: "there is no such account or device"}
	case err != nil:
		a.log.Error("operator's request failed", zap.Error(err))
		status, v = http.StatusInternalServerError, jams.Refusal{Code: httpapi.Error, ErrorDetails: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.log.Debug("answer not sent", zap.Error(err))
	}
}
