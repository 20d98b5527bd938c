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

// alone are no part of a node and need none.
var alone = []process{
	{"names", names.New},
	{"jams", jams.New},
}

// What identity does where no node has to run.
var (
	importAccount = identity.Import
	accountFiles  = identity.Files
)
