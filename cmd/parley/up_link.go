package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/supervise"
)

// nodeLink is the supervisor's side on the bus and on its Unix socket.
type nodeLink struct {
	cfg   *config.Config
	log   *zap.Logger
	sup   *supervise.Supervisor
	began time.Time
	say   teller

	mu   sync.Mutex
	node supervise.Node
}

// localStatus is what up.sock answers at /status: all that is known without the
// bus.
type localStatus struct {
	Node      supervise.Node      `json:"node"`
	Processes []supervise.Process `json:"processes"`
	Joinable  bool                `json:"joinable"`
}

func (l *nodeLink) serveStatus(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	st := localStatus{Node: l.node}
	l.mu.Unlock()
	st.Processes, st.Joinable = l.sup.Processes(), l.sup.Joinable()
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(st); err != nil {
		l.log.Debug("status not sent", zap.Error(err))
	}
}

// run serves node.processes, tells how the start goes and, when the node is
// joinable, how to reach it. It returns when ctx ends.
func (l *nodeLink) run(ctx context.Context) {
	env := &host.Env{Name: "up", Version: version, Config: l.cfg, Log: l.log}
	conn, err := env.Connect(ctx)
	if err != nil {
		if ctx.Err() == nil {
			l.log.Error("the bus does not let the supervisor in; `parley status` works without it", zap.Error(err))
		}
		return
	}
	defer conn.Close()
	svc, err := bus.NewService(conn, "up", version, "the supervisor of this node")
	if err == nil {
		defer svc.Stop()
		err = bus.Serve(svc, contract.NodeStatus, func(context.Context, *bus.Request[contract.None]) (*contract.NodeProcesses, error) {
			return l.processes(), nil
		})
	}
	if err != nil {
		l.log.Error("node.processes is not served", zap.Error(err))
	}
	if err := l.announce(ctx, conn); err != nil && ctx.Err() == nil {
		l.log.Error("waiting for the node to be joinable", zap.Error(err))
	}
	<-ctx.Done()
}

func (l *nodeLink) processes() *contract.NodeProcesses {
	out := new(contract.NodeProcesses)
	for _, p := range l.sup.Processes() {
		out.Processes = append(out.Processes, contract.Process(p))
	}
	return out
}

// announce follows the start until participants can join.
func (l *nodeLink) announce(ctx context.Context, conn *bus.Conn) error {
	acc, err := l.waitAccount(ctx, conn)
	if err != nil {
		return err
	}
	if err := l.sup.WaitJoinable(ctx); err != nil {
		return err
	}
	took := time.Since(l.began)
	eps, err := l.waitLinks(ctx, conn)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.node.Account, l.node.Alias = acc.ID, acc.Alias
	l.node.Links = map[string]string{"join": eps.Links.Join, "others": eps.Links.Others, "operator": eps.Links.Operator, "sip": eps.Links.SIP, "jami": eps.Links.Jami}
	l.mu.Unlock()
	l.log.Info("joinable", zap.Duration("after", took), zap.String("account", acc.ID))
	if err := notifySystemd("READY=1"); err != nil {
		l.log.Warn("service manager not told", zap.Error(err))
	}
	l.say.block(took, acc, eps.Links, l.cfg.Data, os.Getpid())
	return nil
}

// tellAfter keeps a start that needs no words silent.
const tellAfter = 300 * time.Millisecond

// waitAccount is bus.Conn.WaitAccount that says what it waits for.
func (l *nodeLink) waitAccount(ctx context.Context, conn *bus.Conn) (contract.Account, error) {
	told, tell := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer tell()
	wg.Go(func() {
		var last string
		for wait := tellAfter; ; wait = time.Second {
			select {
			case <-told.Done():
				return
			case <-time.After(wait):
			}
			st, err := bus.Call(told, conn, contract.IdentityGet, &contract.None{})
			if err != nil || st.State == "ready" {
				continue
			}
			msg := st.Message
			if st.State == "creating" {
				msg = "creating the account (three RSA-4096 keys, takes 3 to 8 s)…"
			}
			if msg != last {
				l.say.progress(msg)
				last = msg
			}
		}
	})
	return conn.WaitAccount(ctx)
}

// linkWait is how often connect is asked while it does not answer.
const linkWait = 50 * time.Millisecond

func (l *nodeLink) waitLinks(ctx context.Context, conn *bus.Conn) (*contract.Endpoints, error) {
	for {
		eps, err := bus.Call(ctx, conn, contract.ConnectStatus, &contract.None{})
		if err == nil {
			return eps, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("links: %w", err)
		case <-time.After(linkWait):
		}
	}
}

// block tells how to reach the node. The operator's link holds a token: it is
// printed for a person at a terminal, never into a log.
func (t teller) block(took time.Duration, acc contract.Account, links contract.Links, data string, pid int) {
	operator := links.Operator
	if !t.terminal {
		operator = "(its link holds a token; it is shown by: bin/parley status --data " + data + ")"
	}
	others := ""
	if links.Others != "" {
		others = fmt.Sprintf("  others     %s  (from other machines; browsers warn of the node's own certificate)\n", links.Others)
	}
	fmt.Fprintf(t.out, `
Parley is up after %.1f s.

  join       %s
%s  operator   %s
  SIP        %s
  account    %s  %s
  data       %s

Stop it with Ctrl-C or: kill %d

`, took.Seconds(), links.Join, others, operator, links.SIP, acc.ID, acc.Alias, data, pid)
}
