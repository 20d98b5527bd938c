package main

import (
	"github.com/parley-jami/parley/bus/embed"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/conference"
	"github.com/parley-jami/parley/services/connect"
	"github.com/parley-jami/parley/services/dht"
	"github.com/parley-jami/parley/services/identity"
	"github.com/parley-jami/parley/services/jams"
	"github.com/parley-jami/parley/services/media"
	"github.com/parley-jami/parley/services/names"
	"github.com/parley-jami/parley/services/swarm"
	"github.com/parley-jami/parley/services/turn"
)

// process is what `parley run NAME` runs.
type process struct {
	name  string
	build func(*host.Env) (host.Runner, error)
}

// processes are those of a node, in the order in which `parley up` starts them.
var processes = []process{
	{"bus", embed.New},
	{"media", media.New},
	{"identity", identity.New},
	{"conference", conference.New},
	{"connect", connect.New},
	{"swarm", swarm.New},
	{"dht", dht.New},
}

// bootstrap is dht as a public node that others start from, with nothing else of a node.
var bootstrap = process{"dht", dht.NewBootstrap}

// alone are no part of a node and need none.
var alone = []process{
	{"names", names.New},
	{"jams", jams.New},
	{"turn", turn.New},
}
