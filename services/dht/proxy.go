package dht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/secret"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/services/dht/proxy"
	"github.com/parley-jami/parley/services/dht/push"
)

// Times of the proxy's requests; listeners have no end.
const (
	proxyCome   = 20 * time.Second
	proxyAnswer = 30 * time.Second
)

// door is the proxy and where it listens.
type door struct {
	*proxy.Proxy
	httpapi.Door
	push *push.Pusher
	log  *zap.Logger
}

// openProxy opens what the settings ask for; nil: nothing.
func (s *Service) openProxy(dir string, o *owned) (*door, error) {
	c := s.env.Config.DHT
	if c.ProxyListen == "" {
		return nil, nil
	}
	d := &door{log: s.env.Log.Named("proxy")}
	metrics, err := proxy.NewMetrics(s.env.Registry, func() proxy.Counts { return d.Counts() })
	if err != nil {
		return nil, err
	}
	vapid, err := s.newPusher(dir, d)
	if err != nil {
		return nil, err
	}
	alone := (c.Overlay == "opendht" || len(c.Bootstrap) == 0) && (c.Overlay == "libp2p" || len(c.OpenDHTBootstrap) == 0)
	d.Proxy, err = proxy.New(proxy.Options{Overlay: clients{o}, Push: d.push, File: filepath.Join(dir, "proxy.json"), Alone: alone, VAPID: vapid, Log: d.log, Metrics: metrics})
	if err != nil {
		return nil, err
	}
	d.Server = httpapi.NewServer(d.Proxy, d.log, proxyCome, proxyAnswer)
	if c.ProxyCert != "" {
		if d.Server.TLSConfig, err = certs.Given(c.ProxyCert, c.ProxyKey); err != nil {
			return nil, fmt.Errorf("dht.proxy_cert, dht.proxy_key: %w", err)
		}
	}
	l, err := sockets.Listen(sockets.Spec{Name: "proxy", Network: "tcp", Addr: c.ProxyListen, Setting: "dht.proxy_listen"})
	if err != nil {
		return nil, err
	}
	d.Listener = metrics.Listener(l)
	d.log.Info("serving the DHT by HTTP", zap.Stringer("address", l.Addr()), zap.Bool("tls", c.ProxyCert != ""))
	return d, nil
}

// newPusher makes what wakes clients up, and returns the key that browsers need.
func (s *Service) newPusher(dir string, d *door) (vapid string, err error) {
	c := s.env.Config.DHT
	o := push.Options{AllowPrivate: c.PushPrivate, Gorush: c.PushGorush, Log: d.log.Named("push"), Gone: func(t push.Target) { d.Gone(t) }}
	if o.Metrics, err = push.NewMetrics(s.env.Registry); err != nil {
		return "", err
	}
	if o.VAPID, err = push.OpenVAPID(filepath.Join(dir, "vapid.key"), cmp.Or(c.PushContact, "admin@localhost")); err != nil {
		d.log.Error("no push to browsers", zap.Error(err))
	} else {
		vapid = o.VAPID.Public
	}
	if c.PushWebhookSecretFile != "" {
		if o.Secret, err = secret.File(c.PushWebhookSecretFile); err != nil {
			return "", fmt.Errorf("dht.push_webhook_secret_file: %w", err)
		}
	}
	d.push = push.New(o)
	return vapid, nil
}

// run serves until ctx ends, or with the error that ended it.
func (d *door) run(ctx context.Context) (err error) {
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	var kept error
	wg.Go(func() { d.push.Run(keep) })
	wg.Go(func() { kept = d.Run(keep) })
	err = httpapi.Serve(ctx, d.log, d.End, d.Door)
	stop()
	wg.Wait()
	return errors.Join(err, kept)
}
