package embed

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/config"
)

const (
	clusterName = "parley"
	accountSync = 5 * time.Second        // how often a server asks another for accounts that it missed
	pushTime    = 3 * time.Second        // for telling all servers of an account
	connsTime   = 500 * time.Millisecond // for all servers to tell who is there
	quietTime   = 500 * time.Millisecond // without another answer, after which servers are taken to be away
	ensureTime  = 5 * time.Second        // for making the streams, which waits for a leader
)

// cluster is how this server is one of several.
type cluster struct {
	name     string // of this server
	replicas int
	opts     server.ClusterOpts
	routes   []*url.URL
}

// newCluster reads the settings; nil: the server is alone.
func newCluster(c *config.Bus, ca *authority) (*cluster, error) {
	if c.ClusterListen == "" {
		return nil, nil
	}
	host, port, err := splitListen(c.ClusterListen)
	if err != nil {
		return nil, fmt.Errorf("bus.cluster_listen: %w", err)
	}
	name := c.ClusterServer
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("the name of this server is not known; set bus.cluster_server (%w)", err)
		}
	}
	// Both ends of a route show a certificate of the bus's authority: who has no bus/keys is no server
	// of this cluster.
	shown := &shown{ca: ca, names: []string{ServerName}, now: time.Now}
	if _, err := shown.get(); err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	secure := &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.get() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown.get() },
	}
	cl := &cluster{name: name, replicas: cmp.Or(c.Replicas, 3), opts: server.ClusterOpts{
		Name: clusterName, Host: host, Port: port, Advertise: c.ClusterAdvertise, NoAdvertise: true,
		TLSConfig: secure, TLSTimeout: authTimeout, ConnectRetries: 1 << 30, // of those that are told by others, too
		PingInterval: time.Second, MaxPingsOut: 2, // a machine that is gone says nothing
	}}
	for _, r := range c.ClusterRoutes {
		cl.routes = append(cl.routes, &url.URL{Scheme: "nats-route", Host: r})
	}
	return cl, nil
}

// resolver holds the accounts of a cluster in dir; servers tell each other of them.
func (c *cluster) resolver(dir string) (server.AccountResolver, error) {
	r, err := server.NewDirAccResolver(dir, 0, accountSync, server.NoDelete)
	if err != nil {
		return nil, fmt.Errorf("accounts of the cluster: %w", err)
	}
	return r, nil
}

// memberAccounts are those that a member brings: the others are the node's to sign, from which it has them. A
// member that signed anew what it knows would bring back who was revoked.
func (k *keys) memberAccounts() (map[string]string, error) {
	all, err := k.accounts(nil)
	if err != nil {
		return nil, err
	}
	sys, err := public(k.system)
	if err != nil {
		return nil, err
	}
	return map[string]string{sys: all[sys]}, nil
}

// sysConn is a connection within the process as a user of the system account, whose credentials never
// leave it. It ends with the server.
func (n *nats) sysConn() (*natsgo.Conn, error) {
	n.sysMu.Lock()
	defer n.sysMu.Unlock()
	if n.sys != nil && n.sys.IsConnected() {
		return n.sys, nil
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("system user: %w", err)
	}
	pub, err := public(user)
	if err != nil {
		return nil, err
	}
	uc := jwt.NewUserClaims(pub)
	uc.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeInProcess}
	tok, err := uc.Encode(n.keys.system)
	if err != nil {
		return nil, fmt.Errorf("system user: %w", err)
	}
	nc, err := natsgo.Connect("", natsgo.InProcessServer(n.srv), natsgo.NoReconnect(), natsgo.UserJWT(func() (string, error) { return tok, nil }, user.Sign))
	if err != nil {
		return nil, fmt.Errorf("system user: %w", err)
	}
	n.sys = nc
	return nc, nil
}

func (n *nats) alone() bool { return n.cluster == nil }

// conns are the connections of all servers that answer in time, of those accounts and others.
func (n *nats) conns([]string) ([]*server.ConnInfo, error) {
	opts := server.ConnzOptions{Username: true, Limit: maxConns}
	if n.cluster == nil {
		all, err := n.srv.Connz(&opts)
		if err != nil {
			return nil, fmt.Errorf("connections: %w", err)
		}
		return all.Conns, nil
	}
	nc, err := n.sysConn()
	if err != nil {
		return nil, err
	}
	q, err := json.Marshal(&opts)
	if err != nil {
		return nil, fmt.Errorf("connections: %w", err)
	}
	all, err := askAll(nc, "$SYS.REQ.SERVER.PING.CONNZ", q, connsTime, len(n.cluster.routes)+1)
	if err != nil {
		return nil, fmt.Errorf("connections: %w", err)
	}
	return connsIn(all)
}

// connsIn reads the answers of servers. Who was at a server that does not answer has some seconds to be at another.
func connsIn(answers []*natsgo.Msg) (out []*server.ConnInfo, err error) {
	for _, m := range answers {
		var a struct {
			Data *server.Connz `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return nil, fmt.Errorf("connections: %w", err)
		}
		if a.Data != nil {
			out = append(out, a.Data.Conns...)
		}
	}
	return out, nil
}

// push makes an account's claims those that hold at every server of the cluster that is there; the
// others ask for it when they are back.
func (n *nats) push(tok string) error {
	nc, err := n.sysConn()
	if err != nil {
		return err
	}
	return pushTo(nc, tok, len(n.cluster.routes)+1)
}

// pushTo tells so many servers of an account, over a connection of the system account.
func pushTo(nc *natsgo.Conn, tok string, servers int) error {
	all, err := askAll(nc, "$SYS.REQ.CLAIMS.UPDATE", []byte(tok), pushTime, servers)
	if err == nil && len(all) == 0 {
		err = natsgo.ErrTimeout
	}
	for _, m := range all {
		var a server.ServerAPIClaimUpdateResponse
		if err == nil {
			err = json.Unmarshal(m.Data, &a)
		}
		if err == nil && a.Error != nil {
			err = errors.New(a.Error.Description)
		}
	}
	if err != nil {
		return fmt.Errorf("servers of the bus not told: %w", err)
	}
	return nil
}

// askAll asks every server and returns the answers that come in time, of which as many as there are servers are waited for.
func askAll(nc *natsgo.Conn, subject string, body []byte, within time.Duration, servers int) ([]*natsgo.Msg, error) {
	return askEach(nc, []string{subject}, body, within, servers)
}

// askEach asks every server of each subject.
func askEach(nc *natsgo.Conn, subjects []string, body []byte, within time.Duration, servers int) ([]*natsgo.Msg, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // it fails only with the connection closed
	for _, s := range subjects {
		if err := nc.PublishRequest(s, inbox, body); err != nil {
			return nil, err
		}
	}
	var all []*natsgo.Msg
	end := time.Now().Add(within)
	for range servers * len(subjects) {
		m, err := sub.NextMsg(time.Until(end))
		if errors.Is(err, natsgo.ErrTimeout) {
			break
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
		if soon := time.Now().Add(quietTime); soon.Before(end) {
			end = soon
		}
	}
	return all, nil
}

// runMember serves as a further server of a cluster.
func (b *Bus) runMember(ctx context.Context) error {
	begun := time.Now()
	dir, err := b.env.Dir()
	if err != nil {
		return err
	}
	if path := filepath.Join(dir, "keys", "keys.json"); !isFile(path) {
		return fmt.Errorf("bus.member: copy bus/keys/keys.json of the node to %s first; it is a secret", path)
	}
	k, err := loadKeys(dir, nil)
	if err != nil {
		return err
	}
	d, err := newDoor(&b.env.Config.Bus, k.ca)
	if err != nil {
		return err
	}
	cl, err := newCluster(&b.env.Config.Bus, k.ca)
	if err != nil {
		return err
	}
	accounts, err := k.memberAccounts()
	if err != nil {
		return err
	}
	n, err := start(ctx, dir, b.env.Config.Bus.Listen, d.tls, cl, k, accounts, b.env.Log.Named("nats"))
	if err != nil {
		return err
	}
	defer n.stop()
	b.server.Store(n.srv)
	if err := n.measured(b.env.Registry); err != nil {
		return err
	}
	b.env.Log.Info("server of the bus is up", zap.String("server", cl.name), zap.String("url", n.url()), zap.Bool("tls", d.tls != nil), zap.Duration("took", time.Since(begun)))
	b.env.SetReady(true)
	if b.Started != nil {
		b.Started(n.url())
	}
	gone := make(chan struct{})
	go func() { n.srv.WaitForShutdown(); close(gone) }() // ends by n.stop at the latest
	select {
	case <-ctx.Done():
		err = nil
	case <-gone:
		err = errStopped
	}
	b.env.SetReady(false)
	return err
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// healthy is Healthz without what a cluster heals by itself: a stream whose leader is being chosen.
func (n *nats) healthy() error {
	if n.cluster != nil {
		return nil
	}
	if h := n.srv.Healthz(nil); h.Status != "ok" {
		return errors.New(cmp.Or(h.Error, h.Status))
	}
	return nil
}
