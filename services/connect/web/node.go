package web

import (
	"context"
	"encoding/json"
	"errors"
)

// Command is an order to the rest of the node, by its name in the contract.
type Command struct {
	Name    string   // "room.join"
	Account string   // Jami Id of the account that is meant; empty: the main one
	Params  []string // tokens of its subject after the account
	Key     string   // idempotency key, may be empty
	Body    any      // becomes the JSON of the request; a *contract.Secret is sealed to identity
}

// Node is the rest of the node. Do is safe for concurrent use, ends with ctx,
// and fails with a *[Refusal].
type Node interface {
	Do(ctx context.Context, c Command) (json.RawMessage, error)
}

// Refusal is why a command was not done, in the words of the contract.
type Refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Retry   bool   `json:"retry"`
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

// refusal returns err as what a client is told; an error that the node did not
// word for people is not shown to them.
func refusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: "internal", Message: "an error in the node; its log says more", Retry: true}
}

// Refusals of this package; the codes are those of the contract.
var (
	errRate       = &Refusal{Code: "slow_down", Message: "too many requests; wait a little", Retry: true}
	errBusy       = &Refusal{Code: "busy", Message: "too much at once; try again", Retry: true}
	errGone       = &Refusal{Code: "gone", Message: "this seat is gone; join again"}
	errSession    = &Refusal{Code: "gone", Message: "this session has ended or is not from this node; join again"}
	errNotJoined  = &Refusal{Code: "forbidden", Message: "join a room first"}
	errIsJoined   = &Refusal{Code: "exists", Message: "this connection is in a room already; leave it first"}
	errNoOperator = &Refusal{Code: "not_found", Message: "this machine takes calls for a node that runs elsewhere: the operator's page is there"}
	errToken      = &Refusal{Code: "forbidden", Message: "the operator's token is missing or wrong; parley status shows the operator link"}
)

// badRequest says what is wrong with a message.
func badRequest(what string) *Refusal { return &Refusal{Code: "bad_request", Message: what} }

// Event is a fact about a room. Raw is the whole of it as JSON and must not be
// changed.
type Event struct {
	Room        string
	Type        string // as in the contract: "joined", "left", "closed", "quality", …
	Participant string // id of whom it is about, may be empty
	Reason      string
	Raw         json.RawMessage
	Qualities   map[string]json.RawMessage // of type "quality": by participant id
}

// seat is the part of the contract's Joined that this package reads.
type seat struct {
	Participant struct {
		ID        string `json:"id"`
		Connected bool   `json:"connected"`
	} `json:"participant"`
	SDP string `json:"sdp"`
}
