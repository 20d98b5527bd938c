package api

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/services/jams/store"
)

// Operator answers what the operator asks over a Unix socket that is his alone:
//
//	GET    /users                    all accounts with their devices
//	DELETE /users/NAME               revokes an account
//	DELETE /users/NAME/devices/ID    revokes a device
func Operator(a *Accounts) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users", func(w http.ResponseWriter, _ *http.Request) {
		list, err := a.List()
		operatorAnswer(w, a, list, err)
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
		id, ok := longID(r.PathValue("id"))
		if err == nil && !ok {
			err = store.ErrNotFound
		}
		if err == nil {
			err = a.RevokeDevice(name, id)
		}
		operatorAnswer(w, a, struct{}{}, err)
	})
	return mux
}

func operatorAnswer(w http.ResponseWriter, a *Accounts, v any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, store.ErrNotFound):
		status, v = http.StatusNotFound, jams.Refusal{Code: resultNotFound, ErrorDetails: "there is no such account or device"}
	case err != nil:
		a.log.Error("operator's request failed", zap.Error(err))
		status, v = http.StatusInternalServerError, jams.Refusal{Code: resultError, ErrorDetails: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.log.Debug("answer not sent", zap.Error(err))
	}
}

// longID reads 64 hex digits.
func longID(s string) (id jami.LongID, ok bool) {
	if len(s) != hex.EncodedLen(len(id)) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}
