package embed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/natscreds"
)

const (
	// systemInbox is where answers to the node come at another's servers, whose system account has other users.
	systemInbox = "_INBOX_parley"
	askTime     = 2 * time.Second
)

// SystemRights is what the user of bus.system_creds has to be allowed to publish and subscribe.
var SystemRights = struct{ Publish, Subscribe []string }{
	Publish: []string{"$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP", "$SYS.REQ.ACCOUNT.*.CONNZ",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.VARZ"},
	Subscribe: []string{systemInbox + ".>"},
}

// system is a connection of a user of another's system account. It is safe for concurrent use.
type system struct {
	nc  *natsgo.Conn
	bus *config.Bus
}

// dialSystem connects, and waits for servers that are not there yet.
func dialSystem(ctx context.Context, c *config.Bus, a contract.BusAccess, log *zap.Logger) (*system, error) {
	raw, err := readSecret(c.SystemCreds)
	if err != nil {
		return nil, fmt.Errorf("bus.system_creds: %w", err)
	}
	tok, err := jwt.ParseDecoratedJWT(raw)
	var user nkeys.KeyPair
	if err == nil {
		user, err = jwt.ParseDecoratedUserNKey(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("bus.system_creds: %s is not a file of credentials (%w)", c.SystemCreds, err)
	}
	var plain atomic.Bool // no server in operator mode asks for no proof
	opts := []natsgo.Option{
		natsgo.Name("parley system"), natsgo.CustomInboxPrefix(systemInbox), natsgo.Timeout(askTime),
		natsgo.MaxReconnects(-1), natsgo.IgnoreAuthErrorAbort(), natsgo.ReconnectWait(200 * time.Millisecond),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
			log.Warn("refused as the user of bus.system_creds", zap.Error(err))
		}),
		natsgo.UserJWT(func() (string, error) { return tok, nil }, func(nonce []byte) ([]byte, error) {
			plain.Store(len(nonce) == 0)
			return user.Sign(nonce)
		}),
	}
	secure, err := natscreds.TLS(a)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		opts = append(opts, natsgo.Secure(secure))
	}
	said := ""
	for {
		nc, err := natsgo.Connect(c.URL, opts...)
		switch {
		case plain.Load():
			if err == nil {
				nc.Close()
			}
			return nil, fmt.Errorf("bus.operator_key: the server at %s is in no operator mode: its configuration needs `operator`, `system_account` and `resolver { type: full, dir: … }`", c.URL)
		case errors.Is(err, natsgo.ErrAuthorization) || errors.Is(err, natsgo.ErrAuthExpired) || errors.Is(err, natsgo.ErrAuthRevoked):
			return nil, fmt.Errorf("the servers at %s refuse the user of bus.system_creds, %s (%w): make it again there, as a user of the system account", c.URL, c.SystemCreds, err)
		case err == nil:
			return &system{nc: nc, bus: c}, nil
		}
		if now := err.Error(); now != said {
			said = now
			log.Warn("bus not reached yet", zap.String("url", c.URL), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("bus at %s: %w", c.URL, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *system) close() { s.nc.Close() }

// denied is err, or what the user lacks where the servers have refused him that subject.
func (s *system) denied(err error, subject string) error {
	last := s.nc.LastError()
	if errors.Is(last, natsgo.ErrPermissionViolation) && (strings.Contains(last.Error(), subject) || strings.Contains(last.Error(), systemInbox)) {
		return fmt.Errorf("the user of bus.system_creds, %s, lacks rights (%w): it has to be allowed to publish %s and to subscribe %s",
			s.bus.SystemCreds, last, strings.Join(SystemRights.Publish, " "), strings.Join(SystemRights.Subscribe, " "))
	}
	return err
}

// count is how many servers there are.
func (s *system) count() (int, error) {
	const subject = "$SYS.REQ.SERVER.PING"
	m, err := s.nc.Request(subject, nil, askTime)
	if errors.Is(err, natsgo.ErrNoResponders) {
		return 0, fmt.Errorf("the user of bus.system_creds, %s, is of no system account: make one in the account that the servers at %s name as `system_account`", s.bus.SystemCreds, s.bus.URL)
	}
	if err != nil {
		return 0, s.denied(fmt.Errorf("servers at %s: %w", s.bus.URL, err), subject)
	}
	var a server.ServerStatsMsg
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return 0, fmt.Errorf("servers at %s: %w", s.bus.URL, err)
	}
	return max(1, a.Stats.ActiveServers), nil
}

// starts are the ids of the servers that answer, another one for each start.
func (s *system) starts() (ids []string, err error) {
	n, err := s.count()
	if err != nil {
		return nil, err
	}
	all, err := askAll(s.nc, "$SYS.REQ.SERVER.PING", nil, askTime, n)
	if err != nil {
		return nil, fmt.Errorf("servers at %s: %w", s.bus.URL, err)
	}
	for _, m := range all {
		var a server.ServerStatsMsg
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return nil, fmt.Errorf("servers at %s: %w", s.bus.URL, err)
		}
		ids = append(ids, a.Server.ID)
	}
	return ids, nil
}

// varz is what each server that answers in time says of itself; one at least.
func (s *system) varz() ([]*server.Varz, error) {
	const subject = "$SYS.REQ.SERVER.PING.VARZ"
	n, err := s.count()
	if err != nil {
		return nil, err
	}
	all, err := askAll(s.nc, subject, nil, pushTime, n)
	if err == nil && len(all) == 0 {
		err = natsgo.ErrTimeout
	}
	if err != nil {
		return nil, s.denied(fmt.Errorf("servers at %s: %w", s.bus.URL, err), subject)
	}
	var out []*server.Varz
	for _, m := range all {
		var a struct {
			Data *server.Varz `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &a); err != nil || a.Data == nil {
			return nil, fmt.Errorf("servers at %s: %.200q is no answer (%v)", s.bus.URL, m.Data, err)
		}
		out = append(out, a.Data)
	}
	return out, nil
}

// held is what the servers have of an account.
type held struct {
	newest     *jwt.AccountClaims // nil: none has it
	everywhere bool               // each server that answers has just that
}

// lookup asks the servers for accounts.
func (s *system) lookup(accounts []string) (map[string]held, error) {
	n, err := s.count()
	if err != nil {
		return nil, err
	}
	const before, after = "$SYS.REQ.ACCOUNT.", ".CLAIMS.LOOKUP"
	out := map[string]held{}
	for some := range slices.Chunk(accounts, 64) {
		var subjects []string
		for _, a := range some {
			subjects = append(subjects, before+a+after)
		}
		all, err := askEach(s.nc, subjects, nil, askTime, n)
		if err == nil && len(all) == 0 {
			err = natsgo.ErrTimeout
		}
		if errors.Is(err, natsgo.ErrNoResponders) {
			return nil, fmt.Errorf("the servers at %s tell of no accounts: their configuration needs `resolver { type: full, dir: … }`", s.bus.URL)
		}
		if err != nil {
			return nil, s.denied(fmt.Errorf("accounts at %s: %w", s.bus.URL, err), subjects[0])
		}
		times := map[string]int{} // that one and the same was told
		for _, m := range all {
			if len(m.Data) == 0 { // a server that has none does not say of which
				continue
			}
			ac, err := jwt.DecodeAccountClaims(string(m.Data))
			if err != nil {
				return nil, fmt.Errorf("accounts at %s: %w", s.bus.URL, err)
			}
			h := out[ac.Subject]
			if h.newest == nil || ac.IssuedAt > h.newest.IssuedAt {
				h.newest = ac
			}
			out[ac.Subject] = h
			times[ac.ID]++
		}
		// Of each account as many servers tell, if all have it.
		for a, h := range out {
			if slices.Contains(some, a) {
				h.everywhere = times[h.newest.ID]*len(some) == len(all)
				out[a] = h
			}
		}
	}
	return out, nil
}
