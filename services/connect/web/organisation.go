package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
)

// orgPage is how many accounts the operator's page asks for at once.
const orgPage = 50

// summaryWithin is how long the live state waits for the account server.
const summaryWithin = time.Second

// Organisation is an account server on this machine, see [jams.Operator]. Its
// methods are safe for concurrent use.
type Organisation interface {
	Summary(ctx context.Context) (jams.Summary, error)
	Accounts(ctx context.Context, query, after string, limit int) (jams.AccountPage, error)
	RevokeAccount(ctx context.Context, name string) error
	RevokeDevice(ctx context.Context, name string, id jami.LongID) error
}

// orgState is what the live state says of the account server.
type orgState struct {
	*jams.Summary
	Error string `json:"error,omitempty"` // why it can't be asked
}

// orgSummary returns nil when there is no account server.
func (s *Server) orgSummary(ctx context.Context) *orgState {
	if s.cfg.Organisation == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, summaryWithin)
	defer cancel()
	sum, err := s.cfg.Organisation.Summary(ctx)
	switch {
	case err == nil:
		return &orgState{Summary: &sum}
	case jams.Absent(err):
		return nil
	}
	return &orgState{Error: orgRefusal(err).Message}
}

// orgRefusal says it in the words of the page.
func orgRefusal(err error) *Refusal {
	switch {
	case jams.Absent(err):
		return &Refusal{Code: "unavailable", Message: "no account server runs on this machine", Retry: true}
	case jams.Denied(err):
		return &Refusal{Code: "unavailable", Message: "the account server runs as another user, who alone may ask it"}
	case errors.Is(err, jams.ErrNotFound):
		return &Refusal{Code: "not_found", Message: "there is no such account or device"}
	case errors.Is(err, context.DeadlineExceeded):
		return &Refusal{Code: "timeout", Message: "the account server is too slow", Retry: true}
	case errors.Is(err, jams.ErrUnavailable):
		return &Refusal{Code: "unavailable", Message: "the account server does not answer; its log says why", Retry: true}
	}
	return refusal(err)
}

func (s *Server) routeOrganisation(op func(pattern string, fn http.HandlerFunc)) {
	op("GET /api/v1/organisation/accounts", s.organisation(func(ctx context.Context, r *http.Request) (any, error) {
		q := r.URL.Query()
		limit, err := strconv.Atoi(q.Get("limit"))
		if q.Get("limit") == "" {
			limit, err = orgPage, nil
		}
		if err != nil || limit < 1 || limit > jams.MaxPage {
			return nil, badRequest("limit is a number from 1 to 100")
		}
		return s.cfg.Organisation.Accounts(ctx, q.Get("query"), q.Get("after"), limit)
	}))
	op("DELETE /api/v1/organisation/accounts/{account}", s.organisation(func(ctx context.Context, r *http.Request) (any, error) {
		return nil, s.cfg.Organisation.RevokeAccount(ctx, r.PathValue("account"))
	}))
	op("DELETE /api/v1/organisation/accounts/{account}/devices/{device}", s.organisation(func(ctx context.Context, r *http.Request) (any, error) {
		id, err := jams.ParseDeviceID(r.PathValue("device"))
		if err != nil {
			return nil, badRequest("a device's id has 64 hex digits")
		}
		return nil, s.cfg.Organisation.RevokeDevice(ctx, r.PathValue("account"), id)
	}))
}

// organisation answers with what fn returns; nil is no content.
func (s *Server) organisation(fn func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Organisation == nil {
			fail(w, &Refusal{Code: "not_found", Message: "this node looks for no account server"})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), commandLimit)
		defer cancel()
		v, err := fn(ctx, r)
		switch {
		case err != nil:
			fail(w, orgRefusal(err))
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			answer(w, http.StatusOK, v)
		}
	}
}
