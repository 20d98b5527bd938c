package embed

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// access is what one process may do beyond serving its own commands and
// publishing its own events and audio. The entries are names of contract
// definitions, each of which the process uses (a test looks for it).
type access struct {
	calls  []string // commands that it may send
	hears  []string // events and audio that it may subscribe
	says   []string // audio of others' subjects that it may publish
	stores []store  // what it may use of JetStream
	micro  bool     // may ask $SRV of every service
}

// store is a stream with the subjects under which a process may write to it.
type store struct {
	stream string
	write  []string
	purge  bool // may remove what it wrote
}

// Processes are the users of the bus, in the order of their creation.
var Processes = []string{"up", "bus", "identity", "dht", "connect", "media", "swarm", "conference", "cli"}

// table is who may do what. The rest follows from contract.All: a process may
// subscribe the commands that it serves and publish the events that it owns.
//
// {caller} of identity's commands is the process. {caller} of a room's commands is a participant: connect and cli speak for many
// of them, so it is open there; conference checks what each participant may do.
var table = map[string]access{
	"up": {
		calls: []string{"identity.state", "connect.status"},
		hears: []string{"identity.changed"},
	},
	"bus": {},
	"identity": {
		calls: []string{"bus.bot.grant", "bus.bot.revoke", "dht.put", "dht.get", "dht.cancel", "dht.listen", "dht.node", "peer.say", "conversation.start", "conversation.write"},
		hears: []string{"dht.changed"},
	},
	"dht": {
		calls: []string{"identity.state", "identity.certificates", "contact.list"},
		hears: []string{"identity.changed", "identity.revoked", "contact.changed"},
	},
	"connect": {
		calls: []string{"room.create", "room.remove", "room.list", "room.face", "room.sip", "room.join", "room.leave", "room.get", "room.negotiate", "room.confirm", "room.press",
			"room.mute", "room.hand", "room.role", "room.kick", "room.lock", "room.chat", "room.history",
			"identity.state", "identity.certificates", "contact.list", "account.set", "bot.list", "bot.revoke", "node.processes",
			"device.list", "device.revoke", "contact.set", "request.list", "request.answer", "presence.list", "dht.stats", "room.connections", "room.call", "room.hangup", // of the operator's page
			"identity.sign", "peer.send", "peer.find", "message.take", // of connections to devices
			"conversation.write", "conversation.file", "conversation.files"}, // of files
		hears: []string{"identity.changed", "identity.revoked", "contact.changed", "request.received", "presence.changed", "room.event", "peer.message"},
	},
	// What connect does for browsers and phones on a machine that takes calls for a node which runs
	// elsewhere: see GuestPermissions.
	calling: {
		calls: []string{"room.face", "room.sip", "room.join", "room.leave", "room.get", "room.negotiate", "room.confirm", "room.press",
			"room.mute", "room.hand", "room.role", "room.kick", "room.lock", "room.chat", "room.history",
			"room.list", "identity.state", "identity.certificates", "contact.list"},
		hears: []string{"identity.changed", "identity.revoked", "contact.changed", "room.event"},
	},
	"media": {
		calls:  []string{"identity.state"},
		hears:  []string{"identity.changed", "audio.say"}, // a worker elsewhere has less: see GuestPermissions
		stores: []store{leases("media")},
	},
	"swarm": {
		calls: []string{"identity.state", "identity.sign", "identity.certificates", "contact.list",
			"peer.git", "notice.send", "message.take", "message.fetched", "presence.list"}, // of conversations with Jami accounts
		hears: []string{"identity.changed", "identity.revoked", "contact.changed", "presence.changed", "conversation.notice"},
	},
	"conference": {
		calls: []string{"identity.state", "bot.list", "media.leg.open", "media.leg.sdp", "media.leg.set", "media.leg.close", "media.info", "media.trunks",
			"swarm.open", "swarm.post", "swarm.read", "swarm.detach"},
		hears: []string{"identity.changed", "bus.connected", "media.beat", "media.leg", "media.voice", "media.digit", "media.stats"},
		stores: []store{
			{stream: contract.StreamRoomEvents, purge: true}, // written by publishing its own event
			{stream: "KV_" + contract.BucketRooms, write: []string{"$KV." + contract.BucketRooms + ".>"}},
			leases("conference"),
		},
	},
	"cli": {
		calls: []string{"worker.list", "worker.drain", "bus.worker.add", "bus.worker.revoke", "bus.worker.list", "bus.trust", "room.create", "room.remove", "room.list", "room.get", "room.mute", "room.kick", "room.lock", "room.connections", "room.call", "room.hangup",
			"room.join", "room.leave", "room.negotiate", "room.hand", "room.chat", "room.history", "room.replay", // of bench and sim
			"identity.state", "identity.certificates", "account.create", "account.request", "account.complete", "account.import", "account.join", "account.enrol", "account.retire", "account.crl", "device.link", "name.sign", "account.set", "archive.export", "archive.password",
			"device.list", "device.rename", "device.revoke", "contact.list", "contact.set", "request.list", "request.answer", "bot.create", "bot.list", "bot.revoke", "node.processes", "connect.status", "peer.reach", "presence.list", "message.send", "address.ask", "file.offer", "file.remove", "file.get", "file.cancel", "file.list", "conversation.list", "conversation.answer", "conversation.read",
			"dht.put", "dht.get", "dht.cancel", "dht.listen", "dht.stats", "dht.ping", "dht.scan", "value.seal", "value.open"},
		hears: []string{"room.event", "room.calling", "request.received", "contact.changed", "presence.changed", "message.received", "message.state", "address.learned", "file.transfer", "dht.changed"}, // of sim, call, account requests, contacts and addresses, message, file, and dht listen
		says:  []string{"audio.say"},
		micro: true, // for `nats micro ls`
	},
}

// leases lets a process that hosts actors hold leases under its own name: the key
// "NAME.…" of the bucket.
func leases(name string) store {
	return store{stream: "KV_" + contract.BucketLeases, write: []string{"$KV." + contract.BucketLeases + "." + name + ".>"}}
}

// replyWithin bounds the right to answer a command: one message, so long.
const replyWithin = 30 * time.Second

// named returns the definitions that names mean. One that means none is a mistake in
// the table.
func named(names []string, kinds ...contract.Kind) ([]*contract.Def, error) {
	var out []*contract.Def
	for _, n := range names {
		i := slices.IndexFunc(contract.All(), func(d *contract.Def) bool { return d.Name == n && slices.Contains(kinds, d.Kind) })
		if i < 0 {
			return nil, fmt.Errorf("permissions: the contract has no %q of kind %v", n, kinds)
		}
		out = append(out, contract.All()[i])
	}
	return out, nil
}

// toService reports whether d is audio that flows to the process which serves it.
func toService(d *contract.Def) bool {
	return d.Kind == contract.KindAudio && slices.Contains(d.Params(), "bot")
}

// subject is d's subject with {caller} pinned to caller, unless that is empty, and
// everything else open.
func subject(d *contract.Def, caller string) string {
	params := d.Params()
	for i, p := range params {
		params[i] = "*"
		if p == "caller" && caller != "" {
			params[i] = caller
		}
	}
	return d.Subject(params...)
}

// Permissions returns what the user of a process may publish and subscribe.
func Permissions(process string) (jwt.Permissions, error) {
	a, ok := table[process]
	if !ok {
		return jwt.Permissions{}, fmt.Errorf("permissions: no process %q", process)
	}
	var pub, sub []string
	sub = append(sub, bus.InboxPrefix(process)+".>")
	for _, d := range contract.All() {
		switch {
		case d.Service != process || toService(d): // audio.say is in the table of who hears it
		case d.Kind == contract.KindCommand:
			sub = append(sub, subject(d, ""))
		default:
			pub = append(pub, subject(d, ""))
		}
	}
	calls, err := named(a.calls, contract.KindCommand)
	if err != nil {
		return jwt.Permissions{}, err
	}
	for _, d := range calls {
		caller := ""
		if d.Service == "identity" {
			caller = process // who may use a key is told by that name
		}
		pub = append(pub, subject(d, caller))
	}
	hears, err := named(a.hears, contract.KindEvent, contract.KindAudio)
	if err != nil {
		return jwt.Permissions{}, err
	}
	for _, d := range hears {
		sub = append(sub, subject(d, ""))
	}
	says, err := named(a.says, contract.KindAudio)
	if err != nil {
		return jwt.Permissions{}, err
	}
	for _, d := range says {
		pub = append(pub, subject(d, ""))
	}
	for _, s := range a.stores {
		pub = append(pub, s.write...)
		// Reading is by message and listing by subject filter: their answers
		// are JSON envelopes, which nothing takes for a command wherever they
		// are sent; a direct get or a consumer would deliver the stored bytes.
		pub = append(pub, "$JS.API.STREAM.INFO."+s.stream, "$JS.API.STREAM.MSG.GET."+s.stream)
		if s.purge {
			pub = append(pub, "$JS.API.STREAM.PURGE."+s.stream)
		}
	}
	if a.micro {
		pub = append(pub, "$SRV.>")
	}
	if process == "bus" {
		// Makes the streams; the bus process holds the keys of everything anyway.
		pub = append(pub, "$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.STREAM.INFO.*", "$JS.API.INFO")
	}
	if serves(process) {
		for _, verb := range []string{"PING", "INFO", "STATS"} {
			own := "$SRV." + verb + ".parley-" + process
			sub = append(sub, "$SRV."+verb, own, own+".>")
		}
	}
	p := jwt.Permissions{Pub: jwt.Permission{Allow: unique(pub)}, Sub: jwt.Permission{Allow: unique(sub)}}
	if len(pub) == 0 {
		p.Pub.Deny = jwt.StringList{">"} // an empty list would mean everything
	}
	if serves(process) {
		p.Resp = &jwt.ResponsePermission{MaxMsgs: 1, Expires: replyWithin}
	}
	return p, nil
}

// workerName stands for the name of a user in what his signer permits (nats-server replaces it).
const workerName = "{{name()}}"

// guestServices are what another machine may do for the node: mix, mix and take calls, stand by.
var guestServices = []string{"media", "calls", "conference"}

// calling is what connect may on a machine that takes calls for the node.
const calling = "calling"

// GuestPermissions returns what a service on another machine may publish and subscribe: what that
// service may, with an inbox of its own, and it may say hello. A media worker may it as that worker alone, and
// without leases; one that takes calls speaks in rooms as well, and may nothing that only the operator may.
func GuestPermissions(service string) (jwt.Permissions, error) {
	rights, also := service, ""
	if service == "calls" {
		rights, also = "media", calling
	}
	p, err := guest(rights, rights)
	if err != nil {
		return p, err
	}
	if also != "" {
		d, err := guest(also, "connect")
		if err != nil {
			return p, err
		}
		p.Pub.Allow, p.Sub.Allow = append(p.Pub.Allow, d.Pub.Allow...), append(p.Sub.Allow, d.Sub.Allow...)
	}
	p.Pub.Allow, p.Sub.Allow = unique(append(p.Pub.Allow, contract.BusWorkerHello.Subject(workerName))), unique(p.Sub.Allow)
	return p, nil
}

// guest is what one process of another machine may, by its entry in the table.
func guest(rights, process string) (jwt.Permissions, error) {
	p, err := Permissions(rights)
	if err != nil {
		return p, err
	}
	media := process == "media"
	pin := func(list jwt.StringList) jwt.StringList {
		var out []string
		for _, s := range list {
			if media && (strings.HasPrefix(s, "$JS.") || strings.HasPrefix(s, "$KV.")) {
				continue
			}
			for _, d := range contract.All() {
				if media && d.Service == "media" && slices.Contains(d.Params(), "worker") && s == subject(d, "") {
					s = d.Subject("*", workerName)
				}
			}
			if s == bus.InboxPrefix(rights)+".>" {
				s = bus.InboxPrefix(bus.GuestUser(process, workerName)) + ".>"
			}
			out = append(out, s)
		}
		return unique(out)
	}
	p.Pub.Allow, p.Sub.Allow = pin(p.Pub.Allow), pin(p.Sub.Allow)
	return p, nil
}

// serves reports whether a process answers commands.
func serves(process string) bool {
	return slices.ContainsFunc(contract.All(), func(d *contract.Def) bool {
		return d.Service == process && d.Kind == contract.KindCommand
	})
}

func unique(in []string) jwt.StringList {
	slices.Sort(in)
	return jwt.StringList(slices.Compact(in))
}

// botSubjects returns what a bot with these rights reaches of its room and its account:
// requests it may send (commands, and audio that it says) and streams it may subscribe.
func botSubjects(account, room, bot string, rights []contract.Right) (requests, streams []string) {
	for _, d := range contract.All() {
		if d.Right == "" || d.Right != contract.RightAny && !slices.Contains(rights, d.Right) {
			continue
		}
		s := d.For(account, room, bot)
		if d.Kind == contract.KindCommand || toService(d) {
			requests = append(requests, s)
		} else {
			streams = append(streams, open(s))
		}
	}
	return requests, streams
}

// imported narrows the streams of a bot to the room's events that it may see: an
// account cannot import a wildcard without one of its subjects.
func imported(streams []string, g *contract.BusGrant) []string {
	deny := hidden(g)
	if len(deny) == 0 {
		return streams
	}
	events := open(contract.RoomEvents.Subject(g.Account, g.Room))
	var out []string
	for _, s := range streams {
		if s != events {
			out = append(out, s)
			continue
		}
		for _, t := range contract.RoomEventTypes {
			if s := contract.RoomEvents.Subject(g.Account, g.Room, string(t)); !slices.Contains(deny, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// hidden returns the subjects of the room's events that a bot with these rights
// must not see.
func hidden(g *contract.BusGrant) (deny []string) {
	for _, t := range contract.RoomEventTypes {
		if r := t.Right(); r != contract.RightAny && !slices.Contains(g.Rights, r) {
			deny = append(deny, contract.RoomEvents.Subject(g.Account, g.Room, string(t)))
		}
	}
	return deny
}

// open turns the open tokens at the end of a subject into ">".
func open(subject string) string {
	cut := subject
	for strings.HasSuffix(cut, ".*") {
		cut = strings.TrimSuffix(cut, ".*")
	}
	return cut + ".>"
}

// exports returns the subjects that NODE lets bots' accounts import.
func exports() (requests, streams []string) { return botSubjects("*", "*", "*", contract.Rights) }
