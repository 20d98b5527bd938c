package contract

import "time"

// Version is the contract's: it is raised when a worker and a node no longer understand each
// other although they can still connect.
const Version = 1

// BusAccess is how a program that is no process of the node reaches the bus and knows that it is
// the right one. Its credentials file carries it.
type BusAccess struct {
	URLs []string `json:"urls,omitempty"`
	TLS  bool     `json:"tls,omitempty"` // nothing is said in clear
	// ServerName is what the bus's certificate is for; empty: for the host of the URL.
	ServerName string `json:"server_name,omitempty"`
	CA         string `json:"ca,omitempty"`     // PEM of who signs that certificate; empty: the system's authorities
	Worker     string `json:"worker,omitempty"` // machine that the credentials are of
	// Service is what it does for the node: "media", "calls" or "conference".
	Service string `json:"service,omitempty"`
}

// WorkerAdd asks for credentials of a media worker. The private half of UserKey stays with the
// asker.
type WorkerAdd struct {
	Name    string `json:"name"`              // 1 to 32 of a-z, 0-9 and -
	UserKey string `json:"user_key"`          // public nkey, "U…"
	Service string `json:"service,omitempty"` // "media", which "" is too; "calls": it takes calls of browsers and phones as well; or "conference": one that stands by
}

// WorkerAdded is the answer to it.
type WorkerAdded struct {
	JWT    string    `json:"jwt"`
	Access BusAccess `json:"access"`
	// Alone: the bus is one server, which is gone with the node's machine. Who stands by has no use then.
	Alone bool `json:"alone,omitempty"`
}

// WorkerName names a worker.
type WorkerName struct {
	Name string `json:"name"`
}

// KnownWorker is a worker that has, or had, credentials of its own.
type KnownWorker struct {
	Name    string     `json:"name"`
	Service string     `json:"service"`
	Added   time.Time  `json:"added"`
	Revoked *time.Time `json:"revoked,omitempty"`
	Here    bool       `json:"here,omitempty"`  // it said so less than 35 s ago
	Twice   bool       `json:"twice,omitempty"` // two machines use its credentials
}

// KnownWorkers are all of them, by name.
type KnownWorkers struct {
	Workers []KnownWorker `json:"workers"`
}

// WorkerHello says what a worker is, before it is given anything to do and each ten seconds from then on.
type WorkerHello struct {
	Version  string `json:"version"`  // of the program
	Contract int    `json:"contract"` // Version of this package
	// Instance is another one for each start of the worker; empty: of a version that does not tell.
	Instance string `json:"instance,omitempty"`
}

// WorkerWelcome is the answer to it.
type WorkerWelcome struct {
	Twice bool `json:"twice,omitempty"` // another machine uses these credentials at the same time
}

// The subjects of the bus process about media workers. {worker} of hello is pinned to whom the credentials are of.
var (
	BusAddWorker    = command[WorkerAdd, WorkerAdded]("bus", "bus.worker.add", "node.bus.worker.add", "make credentials for a media worker on another machine", "")
	BusRevokeWorker = command[WorkerName, KnownWorker]("bus", "bus.worker.revoke", "node.bus.worker.revoke", "cut a media worker off, for good", "")
	BusWorkers      = query[None, KnownWorkers]("bus", "bus.worker.list", "node.bus.worker.list", "the media workers that have credentials of their own", "")
	BusWorkerHello  = query[WorkerHello, WorkerWelcome]("bus", "bus.worker.hello", "node.bus.worker.hello.{worker}", "whether a worker of that version can serve this node", "")
	BusTrust        = query[None, BusAccess]("bus", "bus.trust", "node.bus.trust", "what a bot on another machine verifies the bus by", "")
)
