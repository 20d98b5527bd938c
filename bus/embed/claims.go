package embed

import (
	"fmt"
	"slices"
	"strings"
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
	sys, err := public(k.system)
	if err != nil {
		return nil, err
	}
	sc := jwt.NewAccountClaims(sys)
	sc.Name = "SYS"
	nc, err := k.nodeAccount(out, nil)
	if err != nil {
		return nil, err
	}
	toks := map[string]string{}
	for _, ac := range []*jwt.AccountClaims{sc, nc} {
		if toks[ac.Subject], err = ac.Encode(k.operator); err != nil {
			return nil, fmt.Errorf("account %s: %w", ac.Name, err)
		}
	}
	return toks, nil
}

// nodeAccount returns the claims of NODE. from are the networks of the node's own processes at another's
// servers, where templates bind them; empty: any.
func (k *keys) nodeAccount(out map[string]int64, from []string) (*jwt.AccountClaims, error) {
	pub, err := public(k.node)
	if err != nil {
		return nil, err
	}
	ac := jwt.NewAccountClaims(pub)
	ac.Name = k.accountName("NODE", pub)
	for service, kp := range k.guests {
		p, err := GuestPermissions(service)
		if err != nil {
			return nil, err
		}
		if err := k.addSigner(ac, service, kp, p, nil); err != nil {
			return nil, err
		}
	}
	if k.foreign {
		for process, kp := range k.signers {
			if !slices.Contains(Processes, process) {
				continue // a former version had it
			}
			p, err := Permissions(process)
			if err != nil {
				return nil, err
			}
			if err := k.addSigner(ac, "node-"+process, kp, p, from); err != nil {
				return nil, err
			}
		}
	}
	for user, until := range out {
		ac.RevokeAt(user, time.Unix(until, 0))
	}
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit,
		Streams: jwt.NoLimit, Consumer: jwt.NoLimit, MaxAckPending: jwt.NoLimit}
	requests, streams := exports()
	for _, s := range requests {
		ac.Exports.Add(&jwt.Export{Name: s, Subject: jwt.Subject(s), Type: jwt.Service, TokenReq: k.foreign})
	}
	for _, s := range streams {
		ac.Exports.Add(&jwt.Export{Name: s, Subject: jwt.Subject(s), Type: jwt.Stream, TokenReq: k.foreign})
	}
	return ac, nil
}

// accountName tells the account from those of others, among whom it is at another's servers.
func (k *keys) accountName(name, pub string) string {
	if !k.foreign {
		return name
	}
	return "parley-" + strings.ToLower(name+"-"+pub[len(pub)-6:])
}

// addSigner lets an account's users be signed by a key whose users may what its template says. Their credentials
// then fit the line that a server takes at most, and what they may changes with the node's version.
func (k *keys) addSigner(ac *jwt.AccountClaims, role string, kp nkeys.KeyPair, p jwt.Permissions, from []string) error {
	pub, err := public(kp)
	if err != nil {
		return err
	}
	scope := jwt.NewUserScope()
	scope.Role, scope.Key = role, pub
	scope.Template.Permissions = p
	scope.Template.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeStandard}
	if k.foreign { // bus.url may be one of a WebSocket
		scope.Template.AllowedConnectionTypes = append(scope.Template.AllowedConnectionTypes, jwt.ConnectionTypeWebsocket)
	}
	scope.Template.Src.Add(from...)
	ac.SigningKeys.AddScopedSigner(scope)
	return nil
}

// scopedUser returns the JWT of a user in account whose rights are of the template of the signer.
func scopedUser(account, signer nkeys.KeyPair, name, userKey string, tags ...string) (string, error) {
	acc, err := public(account)
	if err != nil {
		return "", err
	}
	uc := jwt.NewUserClaims(userKey)
	uc.Name, uc.IssuerAccount = name, acc
	uc.SetScoped(true)
	uc.Tags = tags
	tok, err := uc.Encode(signer)
	if err != nil {
		return "", fmt.Errorf("user of %s: %w", name, err)
	}
	return tok, nil
}

// guestJWT returns the JWT of the user in NODE of a service on another machine. What it may do follows from who
// signed it and from its name: see [GuestPermissions].
func (k *keys) guestJWT(service, name, userKey string) (string, error) {
	return scopedUser(k.node, k.guests[service], name, userKey)
}

// userJWT returns the JWT of a process's user in NODE, who comes from one of the given networks.
func (k *keys) userJWT(process string, from []string) (string, error) {
	pub, err := public(k.users[process])
	if err != nil {
		return "", err
	}
	if k.foreign {
		return scopedUser(k.node, k.signers[process], process, pub)
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
func (k *keys) botAccount(b *bot) (*jwt.AccountClaims, string, error) {
	g := &b.grant
	pub, err := public(b.account)
	if err != nil {
		return nil, "", err
	}
	ac := jwt.NewAccountClaims(pub)
	ac.Name = k.accountName("bot-"+g.Bot, pub)
	ac.Limits.NatsLimits = jwt.NatsLimits{Subs: botSubs, Data: jwt.NoLimit, Payload: botPayload}
	ac.Limits.AccountLimits = jwt.AccountLimits{Imports: jwt.NoLimit, Exports: 0, Conn: botConns, LeafNodeConn: 0, DisallowBearer: true}
	requests, streams := botSubjects(g.Account, g.Room, g.Bot, g.Rights)
	for _, s := range requests {
		if err := k.addImport(ac, s, jwt.Service); err != nil {
			return nil, "", err
		}
	}
	for _, s := range imported(streams, g) {
		if err := k.addImport(ac, s, jwt.Stream); err != nil {
			return nil, "", err
		}
	}
	if k.foreign {
		p, _, _ := botPermissions(g)
		if err := k.addSigner(ac, "bot", b.signer, p, nil); err != nil {
			return nil, "", err
		}
	}
	tok, err := ac.Encode(k.operator)
	if err != nil {
		return nil, "", fmt.Errorf("account of bot %s: %w", g.Bot, err)
	}
	return ac, tok, nil
}

// addImport lets an account reach a subject of NODE. At another's servers are accounts that are not Parley's, so an
// export there is for whom NODE has signed that.
func (k *keys) addImport(ac *jwt.AccountClaims, subject string, kind jwt.ExportType) error {
	node, err := public(k.node)
	if err != nil {
		return err
	}
	im := &jwt.Import{Name: subject, Subject: jwt.Subject(subject), Account: node, Type: kind}
	if k.foreign {
		act := jwt.NewActivationClaims(ac.Subject)
		act.ImportSubject, act.ImportType = im.Subject, kind
		if im.Token, err = act.Encode(k.node); err != nil {
			return fmt.Errorf("import of %s: %w", subject, err)
		}
	}
	ac.Imports.Add(im)
	return nil
}

// botPermissions say the imports' subjects again.
func botPermissions(g *contract.BusGrant) (p jwt.Permissions, pub, sub []string) {
	pub, sub = botSubjects(g.Account, g.Room, g.Bot, g.Rights)
	sub = append(sub, "_INBOX.>") // of its own account: nobody else's replies pass here
	return jwt.Permissions{Pub: jwt.Permission{Allow: pub}, Sub: jwt.Permission{Allow: sub, Deny: hidden(g)}}, pub, sub
}

// botUser returns the JWT of a bot's user.
func (k *keys) botUser(b *bot) (tok string, pub, sub []string, err error) {
	p, pub, sub := botPermissions(&b.grant)
	if k.foreign {
		// By its tag a bot knows who it is, as otherwise by what it may publish.
		tok, err = scopedUser(b.account, b.signer, b.grant.Bot, b.grant.UserKey, contract.RoomGet.For(b.grant.Account, b.grant.Room, b.grant.Bot))
		return tok, pub, sub, err
	}
	uc := jwt.NewUserClaims(b.grant.UserKey)
	uc.Name = b.grant.Bot
	uc.Permissions = p
	uc.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket}
	if tok, err = uc.Encode(b.account); err != nil {
		return "", nil, nil, fmt.Errorf("user of bot %s: %w", b.grant.Bot, err)
	}
	return tok, pub, sub, nil
}
