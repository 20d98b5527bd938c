package embed

import (
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/parley-jami/parley/bus/contract"
)

// Limits of a bot's NATS account. Replicas share it.
const (
	botConns   = 16
	botSubs    = 256
	botPayload = 64 << 10 // a second of s16le at 24 kHz, and any command
)

func public(kp nkeys.KeyPair) (string, error) {
	pub, err := kp.PublicKey()
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return pub, nil
}

// operatorClaims returns the self-signed claims that the server trusts.
func (k *keys) operatorClaims() (*jwt.OperatorClaims, error) {
	pub, err := public(k.operator)
	if err != nil {
		return nil, err
	}
	sys, err := public(k.system)
	if err != nil {
		return nil, err
	}
	oc := jwt.NewOperatorClaims(pub)
	oc.Name, oc.SystemAccount = "parley", sys
	tok, err := oc.Encode(k.operator)
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	return jwt.DecodeOperatorClaims(tok) // with the issuer filled in
}

// accounts returns the JWTs of the system account and of NODE by public key. Users of NODE
// are out whose JWT was signed at the given time or before, in Unix seconds.
func (k *keys) accounts(out map[string]int64) (map[string]string, error) {
	toks := map[string]string{}
	add := func(kp nkeys.KeyPair, name string, fill func(*jwt.AccountClaims)) error {
		pub, err := public(kp)
		if err != nil {
			return err
		}
		ac := jwt.NewAccountClaims(pub)
		ac.Name = name
		fill(ac)
		toks[pub], err = ac.Encode(k.operator)
		if err != nil {
			return fmt.Errorf("account %s: %w", name, err)
		}
		return nil
	}
	if err := add(k.system, "SYS", func(*jwt.AccountClaims) {}); err != nil {
		return nil, err
	}
	var scopes []*jwt.UserScope
	for role, kp := range k.guests {
		scope := jwt.NewUserScope()
		scope.Role = role
		scope.Template.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeStandard}
		var err error
		if scope.Key, err = public(kp); err != nil {
			return nil, err
		}
		if scope.Template.Permissions, err = GuestPermissions(role); err != nil {
			return nil, err
		}
		scopes = append(scopes, scope)
	}
	err := add(k.node, "NODE", func(ac *jwt.AccountClaims) {
		for _, s := range scopes {
			ac.SigningKeys.AddScopedSigner(s)
		}
		for user, until := range out {
			ac.RevokeAt(user, time.Unix(until, 0))
		}
		ac.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit,
			Streams: jwt.NoLimit, Consumer: jwt.NoLimit, MaxAckPending: jwt.NoLimit}
		requests, streams := exports()
		for _, s := range requests {
			ac.Exports.Add(&jwt.Export{Name: s, Subject: jwt.Subject(s), Type: jwt.Service})
		}
		for _, s := range streams {
			ac.Exports.Add(&jwt.Export{Name: s, Subject: jwt.Subject(s), Type: jwt.Stream})
		}
	})
	return toks, err
}

// guestJWT returns the JWT of the user in NODE of a service on another machine. What it may do follows from who
// signed it and from its name: see [GuestPermissions].
func (k *keys) guestJWT(role, name, userKey string) (string, error) {
	node, err := public(k.node)
	if err != nil {
		return "", err
	}
	uc := jwt.NewUserClaims(userKey)
	uc.Name, uc.IssuerAccount = name, node
	uc.SetScoped(true)
	tok, err := uc.Encode(k.guests[role])
	if err != nil {
		return "", fmt.Errorf("user of %s: %w", name, err)
	}
	return tok, nil
}

// userJWT returns the JWT of a process's user in NODE, who comes from one of the given networks.
func (k *keys) userJWT(process string, from []string) (string, error) {
	pub, err := public(k.users[process])
	if err != nil {
		return "", err
	}
	uc := jwt.NewUserClaims(pub)
	uc.Name = process
	if uc.Permissions, err = Permissions(process); err != nil {
		return "", err
	}
	if process == "bus" { // it makes the streams: nobody else has to be it
		uc.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeInProcess}
	} else {
		uc.Src.Add(from...)
	}
	tok, err := uc.Encode(k.node)
	if err != nil {
		return "", fmt.Errorf("user %s: %w", process, err)
	}
	return tok, nil
}

// botAccount returns the claims of a bot's own account, and their JWT: imports of
// its room's subjects and nothing else.
func (k *keys) botAccount(acc nkeys.KeyPair, g *contract.BusGrant) (*jwt.AccountClaims, string, error) {
	pub, err := public(acc)
	if err != nil {
		return nil, "", err
	}
	node, err := public(k.node)
	if err != nil {
		return nil, "", err
	}
	ac := jwt.NewAccountClaims(pub)
	ac.Name = "bot-" + g.Bot
	ac.Limits.NatsLimits = jwt.NatsLimits{Subs: botSubs, Data: jwt.NoLimit, Payload: botPayload}
	ac.Limits.AccountLimits = jwt.AccountLimits{Imports: jwt.NoLimit, Exports: 0, Conn: botConns, LeafNodeConn: 0, DisallowBearer: true}
	requests, streams := botSubjects(g.Account, g.Room, g.Bot, g.Rights)
	for _, s := range requests {
		ac.Imports.Add(&jwt.Import{Name: s, Subject: jwt.Subject(s), Account: node, Type: jwt.Service})
	}
	for _, s := range imported(streams, g) {
		ac.Imports.Add(&jwt.Import{Name: s, Subject: jwt.Subject(s), Account: node, Type: jwt.Stream})
	}
	tok, err := ac.Encode(k.operator)
	if err != nil {
		return nil, "", fmt.Errorf("account of bot %s: %w", g.Bot, err)
	}
	return ac, tok, nil
}

// botUser returns the JWT of a bot's user, which says the imports' subjects again.
func botUser(acc nkeys.KeyPair, g *contract.BusGrant) (tok string, pub, sub []string, err error) {
	uc := jwt.NewUserClaims(g.UserKey)
	uc.Name = g.Bot
	pub, sub = botSubjects(g.Account, g.Room, g.Bot, g.Rights)
	sub = append(sub, "_INBOX.>") // of its own account: nobody else's replies pass here
	uc.Permissions = jwt.Permissions{Pub: jwt.Permission{Allow: pub}, Sub: jwt.Permission{Allow: sub, Deny: hidden(g)}}
	uc.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket}
	if tok, err = uc.Encode(acc); err != nil {
		return "", nil, nil, fmt.Errorf("user of bot %s: %w", g.Bot, err)
	}
	return tok, pub, sub, nil
}
