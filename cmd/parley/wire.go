package main

import (
	"github.com/parley-jami/parley/bus/embed"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/conference"
	"github.com/parley-jami/parley/services/connect"
	"github.com/parley-jami/parley/services/dht"
	"github.com/parley-jami/parley/services/identity"
	"github.com/parley-jami/parley/services/media"
	"github.com/parley-jami/parley/services/swarm"
)

// processes are what `parley run NAME` can run, in the order in which
// `parley up` starts them.
var processes = []struct {
	name  string
	build func(*host.Env) (host.Runner, error)
}{
	{"bus", embed.New},
	{"media", media.New},
	{"identity", identity.New},
	{"conference", conference.New},
	{"connect", connect.New},
	{"swarm", swarm.New},
	{"dht", dht.New},
}
