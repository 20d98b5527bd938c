package embed_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/embed"
	"github.com/parley-jami/parley/internal/config"
)

// room and another are rooms; echo is the bot that attacks.
const (
	room    = "main"
	another = "board"
	echo    = "echo"
)

// reach is written a second time here, by subject, so that a slip in the table of
// permissions.go shows: who may send it, and who may receive it.
var reach = map[string]struct{ send, receive string }{
	"identity.state":        {"up dht connect media swarm conference cli", "identity"},
	"identity.changed":      {"identity", "up dht connect media swarm conference"},
	"account.set":           {"connect cli", "identity"},
	"identity.certificates": {"dht connect swarm cli", "identity"},
	"account.create":        {"cli", "identity"},
	"account.import":        {"cli", "identity"},
	"account.request":       {"cli", "identity"},
	"account.complete":      {"cli", "identity"},
	"account.join":          {"cli", "identity"},
	"account.enrol":         {"cli", "identity"},
	"account.crl":           {"cli", "identity"},
	"device.link":           {"cli", "identity"},
	"name.sign":             {"cli", "identity"},
	"account.retire":        {"cli", "identity"},
	"archive.export":        {"cli", "identity"},
	"archive.password":      {"cli", "identity"},
	"device.list":           {"connect cli", "identity"},
	"device.rename":         {"cli", "identity"},
	"device.revoke":         {"connect cli", "identity"},
	"identity.revoked":      {"identity", "dht connect swarm"},
	"contact.changed":       {"identity", "dht connect swarm cli"},
	"contact.list":          {"dht connect swarm cli", "identity"},
	"contact.set":           {"connect cli", "identity"},
	"request.list":          {"connect cli", "identity"},
	"request.answer":        {"connect cli", "identity"},
	"request.received":      {"identity", "connect cli"},
	"identity.sign":         {"connect swarm", "identity"},
	"peer.send":             {"connect", "identity"},
	"peer.find":             {"connect", "identity"},
	"peer.message":          {"identity", "connect"},
	"peer.reach":            {"cli", "connect"},
	"peer.say":              {"identity", "connect"},
	"peer.git":              {"swarm", "connect"},
	"message.take":          {"connect swarm", "identity"},
	"message.fetched":       {"swarm", "identity"},
	"notice.send":           {"swarm", "identity"},
	"conversation.notice":   {"identity", "swarm"},
	"conversation.list":     {"cli", "swarm"},
	"conversation.start":    {"identity", "swarm"},
	"conversation.answer":   {"cli", "swarm"},
	"conversation.write":    {"identity connect", "swarm"},
	"conversation.read":     {"cli", "swarm"},
	"conversation.file":     {"connect", "swarm"},
	"conversation.files":    {"connect", "swarm"},
	"file.offer":            {"cli", "connect"},
	"file.remove":           {"cli", "connect"},
	"file.get":              {"cli", "connect"},
	"file.cancel":           {"cli", "connect"},
	"file.list":             {"cli", "connect"},
	"file.transfer":         {"connect", "cli"},
	"identity.decrypt":      {"", "identity"},
	"bot.create":            {"cli", "identity"},
	"bot.list":              {"connect conference cli", "identity"},
	"bot.revoke":            {"connect cli", "identity"},
	"bus.worker.add":        {"cli", "bus"}, "bus.worker.revoke": {"cli", "bus"}, "bus.worker.list": {"cli", "bus"}, "bus.trust": {"cli", "bus"},
	"bus.worker.hello": {"", "bus"}, // of workers alone
	"bus.bot.grant":    {"identity", "bus"},
	"bus.bot.revoke":   {"identity", "bus"},
	"bus.connected":    {"bus", "conference"},
	"node.processes":   {"connect cli", "up"},
	"connect.status":   {"up cli", "connect"},
	"dht.put":          {"identity cli", "dht"},
	"dht.cancel":       {"identity cli", "dht"},
	"dht.get":          {"identity cli", "dht"},
	"dht.listen":       {"identity cli", "dht"},
	"dht.changed":      {"dht", "identity cli"},
	"dht.presence":     {"", "dht"},
	"dht.stats":        {"connect cli", "dht"},
	"dht.ping":         {"cli", "dht"},
	"dht.scan":         {"cli", "dht"},
	"value.seal":       {"cli", "identity"},
	"value.open":       {"cli", "identity"},
	"dht.node":         {"identity", "dht"},
	"address.ask":      {"cli", "identity"},
	"address.learned":  {"identity", "cli"},
	"message.send":     {"cli", "identity"},
	"message.received": {"identity", "cli"},
	"message.state":    {"identity", "cli"},
	"presence.list":    {"connect swarm cli", "dht"},
	"presence.changed": {"dht", "connect swarm cli"},
	"swarm.open":       {"conference", "swarm"},
	"swarm.post":       {"conference", "swarm"},
	"swarm.detach":     {"conference", "swarm"},
	"swarm.read":       {"conference", "swarm"},
	"media.leg.open":   {"conference", "media"},
	"media.leg.sdp":    {"conference", "media"},
	"media.leg.set":    {"conference", "media"},
	"media.leg.close":  {"conference", "media"},
	"media.trunks":     {"conference", "media"},
	"media.info":       {"conference", "media"},
	"media.beat":       {"media", "conference"},
	"media.leg":        {"media", "conference"},
	"media.voice":      {"media", "conference"},
	"media.digit":      {"media", "conference"},
	"media.stats":      {"media", "conference"},
	"audio.mix":        {"media", ""},
	"audio.others":     {"media", ""},
	"audio.from":       {"media", ""},
	"audio.say":        {"cli", "media"},
	"room.event":       {"conference", "connect cli"},
	"room.call":        {"connect cli", "connect"}, // and bots
	"room.hangup":      {"connect cli", "connect"},
	"room.calling":     {"connect", "cli"},
	"room.list":        {"connect cli", "conference"},
	"worker.list":      {"cli", "conference"},
	"worker.drain":     {"cli", "conference"},
	"room.face":        {"connect", "conference"},
	"room.sip":         {"connect", "conference"},
	"room.negotiate":   {"connect cli", "conference"},
	"room.confirm":     {"connect", "conference"},
	"room.press":       {"connect", "conference"},
	"room.role":        {"connect", "conference"},
	"room.history":     {"connect cli", "conference"},
	"room.replay":      {"cli", "conference"}, // and bots
	"room.lease":       {"", "conference"},
	"room.listen":      {"", "conference"},
}

// expected falls back to what holds for all commands to a room and to conference.
func expected(t *testing.T, d *contract.Def) (send, receive []string) {
	t.Helper()
	r, ok := reach[d.Name]
	if !ok {
		if d.Kind != contract.KindCommand || d.Service != "conference" {
			t.Fatalf("%s is not in the table of this test: who may send it, who receives it?", d.Name)
		}
		r = struct{ send, receive string }{"connect cli", "conference"}
	}
	return strings.Fields(r.send), strings.Fields(r.receive)
}

// instance returns a subject of d as one process would use it.
func instance(d *contract.Def, process string) string {
	params := d.Params()
	for i, p := range params {
		switch p {
		case "account":
			params[i] = bustest.Account
		case "room":
			params[i] = room
		case "caller":
			params[i] = process
		default:
			params[i] = "x"
		}
	}
	return d.Subject(params...)
}

// field is where the test is played: a bus, an observer who may do anything in the
// account NODE, and the count of what was tried.
type field struct {
	t        *testing.T
	s        *bustest.Server
	admin    *nats.Conn
	seen     *nats.Subscription
	tried    int
	refused  int
	positive int
}

func newField(t *testing.T, s *bustest.Server) *field {
	f := &field{t: t, s: s}
	f.admin = adminConn(t, f.s)
	var err error
	if f.seen, err = f.admin.SubscribeSync(">"); err != nil {
		t.Fatal(err)
	}
	if err := f.admin.Flush(); err != nil {
		t.Fatal(err)
	}
	return f
}

// adminConn connects as a user of NODE without any restriction.
func adminConn(t *testing.T, s *bustest.Server) *nats.Conn {
	t.Helper()
	return s.Admin().NATS()
}

// arrived reports whether NODE has carried payload on a subject since the last
// look, and empties the observer.
func (f *field) arrived(subject, payload string) bool {
	f.t.Helper()
	end := nats.NewInbox()
	if err := f.admin.Publish(end, nil); err != nil {
		f.t.Fatal(err)
	}
	found := false
	for {
		m, err := f.seen.NextMsg(5 * time.Second)
		if err != nil {
			f.t.Fatal(err)
		}
		if m.Subject == end {
			return found
		}
		found = found || m.Subject == subject && (payload == "" || string(m.Data) == payload)
	}
}

// send tries to publish and reports whether NODE carried it. reply may be empty.
func (f *field) send(nc *nats.Conn, subject, reply string) bool {
	f.t.Helper()
	f.tried++
	mark := fmt.Sprintf(`{"mark":%d}`, f.tried)
	before := nc.LastError()
	if err := nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: []byte(mark)}); err != nil {
		f.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
	got := f.arrived(subject, mark)
	if complained := nc.LastError() != before; !complained && !got && nc.Opts.Name != echo {
		f.t.Errorf("%s to %s was neither carried nor refused", nc.Opts.Name, subject)
	}
	return got
}

// receive tries to subscribe, alone and in the group that serves it, and reports
// whether something that NODE carries on at would be delivered.
func (f *field) receive(nc *nats.Conn, subject, at string) bool {
	f.t.Helper()
	f.tried++
	ch := make(chan *nats.Msg, 4)
	a, err := nc.ChanSubscribe(subject, ch)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := nc.ChanQueueSubscribe(subject, "thief", ch)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
	mark := fmt.Sprintf(`{"mark":%d}`, f.tried)
	if err := f.admin.Publish(at, []byte(mark)); err != nil {
		f.t.Fatal(err)
	}
	if err := f.admin.Flush(); err != nil {
		f.t.Fatal(err)
	}
	f.arrived(at, mark)
	if err := nc.Flush(); err != nil { // after it, what was sent to nc is there
		f.t.Fatal(err)
	}
	got := 0
	for len(ch) > 0 {
		if m := <-ch; string(m.Data) == mark {
			got++
		}
	}
	for _, s := range []*nats.Subscription{a, b} {
		_ = s.Unsubscribe() //nolint:errcheck // a refused one is gone already
	}
	return got > 0
}

func (f *field) judge(got, want bool, what string, args ...any) {
	f.t.Helper()
	switch {
	case got && !want:
		f.t.Errorf("not refused: "+what, args...)
	case !got && want:
		f.t.Errorf("refused: "+what, args...)
	case want:
		f.positive++
	default:
		f.refused++
	}
}

func TestLeastPrivilege(t *testing.T) {
	leastPrivilege(t, bustest.StartWith(t, func(c *config.Config) { c.Rooms.Lease = true }))
}

// The same rights hold at the servers of another operator.
func TestLeastPrivilegeAtAnotherNATS(t *testing.T) {
	leastPrivilege(t, bustest.StartAt(t, bustest.StartStock(t, 1), func(*config.Config) {}))
}

func leastPrivilege(t *testing.T, s *bustest.Server) {
	f := newField(t, s)
	conns := map[string]*nats.Conn{}
	for _, p := range embed.Processes {
		conns[p] = f.s.Raw(p)
	}
	t.Run("processes, every subject of the contract", func(t *testing.T) { f.t = t; f.contractOf(conns) })
	t.Run("processes, side doors", func(t *testing.T) { f.t = t; f.sideDoors(conns) })
	t.Run("workers", func(t *testing.T) { f.t = t; f.workers("hall2", f.s.Worker("hall2")) })
	t.Run("workers that take calls", func(t *testing.T) {
		f.t = t
		f.workers("hall3", f.s.Door("hall3"), "room.face", "room.sip", "room.join", "room.leave", "room.get", "room.negotiate", "room.confirm", "room.press",
			"room.mute", "room.hand", "room.role", "room.kick", "room.lock", "room.chat", "room.history", "room.list", "identity.certificates", "contact.list",
			"identity.revoked", "contact.changed", "room.event")
	})
	t.Run("a conference that stands by", func(t *testing.T) { f.t = t; f.standby() })
	t.Run("bots, every subject of the contract", func(t *testing.T) { f.t = t; f.contractOfBots() })
	t.Run("bots, side doors", func(t *testing.T) { f.t = t; f.botDoors() })
	fmt.Printf("rights: %d cases tried: %d refused, %d allowed\n", f.tried, f.refused, f.positive)
}

func (f *field) contractOf(conns map[string]*nats.Conn) {
	for _, d := range contract.All() {
		send, receive := expected(f.t, d)
		for p, nc := range conns {
			s := instance(d, p)
			f.judge(f.send(nc, s, ""), slices.Contains(send, p), "%s sends %s", p, s)
			f.judge(f.receive(nc, s, s), slices.Contains(receive, p), "%s subscribes %s", p, s)
			// Another's name in the token of the caller.
			if slices.Contains(d.Params(), "caller") && strings.HasPrefix(d.Name, "identity.") {
				other := instance(d, "conference")
				f.judge(f.send(nc, other, ""), false, "%s sends %s", p, other)
			}
		}
	}
}

// workers on other machines have what media has, as themselves alone, and nothing of JetStream.
// workers may what media may in their own name, and what else is named.
func (f *field) workers(own, creds string, more ...string) {
	nc := f.s.Dial(nats.UserCredentials(creds), nats.Name("worker"), nats.CustomInboxPrefix(bus.InboxPrefix(bus.WorkerUser(own))))
	as := func(d *contract.Def, worker string) string {
		params := d.Params()
		for i, p := range params {
			params[i] = map[string]string{"account": bustest.Account, "room": room, "worker": worker}[p]
			if params[i] == "" {
				params[i] = "x"
			}
		}
		return d.Subject(params...)
	}
	for _, d := range contract.All() {
		send, receive := expected(f.t, d)
		mine := d.Name == "bus.worker.hello"
		s := as(d, own)
		also := slices.Contains(more, d.Name)
		f.judge(f.send(nc, s, ""), slices.Contains(send, "media") || mine || also && d.Kind == contract.KindCommand, "worker sends %s", s)
		f.judge(f.receive(nc, s, s), slices.Contains(receive, "media") || also && d.Kind == contract.KindEvent, "worker subscribes %s", s)
		if !slices.Contains(d.Params(), "worker") {
			continue
		}
		for _, other := range []string{"m1", "hall1", "hall22"} {
			s := as(d, other)
			f.judge(f.send(nc, s, ""), false, "worker %s sends %s", own, s)
			f.judge(f.receive(nc, s, s), false, "worker %s subscribes %s", own, s)
		}
		wild := as(d, "*")
		f.judge(f.receive(nc, wild, as(d, "m1")), false, "worker %s subscribes %s", own, wild)
	}
	in := bus.InboxPrefix(bus.WorkerUser(own)) + ".x"
	f.judge(f.receive(nc, in, in), true, "worker reads %s", in)
	for _, p := range append(slices.Clone(embed.Processes), bus.WorkerUser("hall1")) {
		in := bus.InboxPrefix(p) + ".x"
		f.judge(f.receive(nc, in, in), false, "worker reads %s", in)
		f.judge(f.send(nc, in, ""), false, "worker writes %s", in)
	}
	f.jetStreamDoors("worker", nc, contract.RoomKick.Subject(bustest.Account, another, "p1"))
	for _, s := range []string{"$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.CLAIMS.UPDATE", "$SRV.PING", "$SRV.INFO.parley-identity"} {
		f.judge(f.send(nc, s, ""), false, "worker sends %s", s)
	}
}

// standby may what conference may, with an inbox of its own.
func (f *field) standby() {
	creds, err := bustest.AddWorker(f.t.Context(), f.s.Conn("cli"), contract.WorkerAdd{Name: "spare", Service: "conference"}, f.t.TempDir())
	if err != nil {
		f.t.Fatal(err)
	}
	own := bus.InboxPrefix(bus.GuestUser("conference", "spare"))
	nc := f.s.Dial(nats.UserCredentials(creds), nats.Name("standby"), nats.CustomInboxPrefix(own))
	for _, d := range contract.All() {
		send, receive := expected(f.t, d)
		s := instance(d, "conference")
		f.judge(f.send(nc, s, ""), slices.Contains(send, "conference"), "standby sends %s", s)
		f.judge(f.receive(nc, s, s), slices.Contains(receive, "conference"), "standby subscribes %s", s)
	}
	f.judge(f.receive(nc, own+".x", own+".x"), true, "standby reads %s", own)
	for _, p := range append(slices.Clone(embed.Processes), bus.GuestUser("conference", "other"), bus.WorkerUser("spare")) {
		in := bus.InboxPrefix(p) + ".x"
		f.judge(f.receive(nc, in, in), false, "standby reads %s", in)
	}
	f.jetStreamDoors("conference", nc, contract.RoomKick.Subject(bustest.Account, another, "p1"))
}

// stores is what each process may read of JetStream, and what it may write.
var stores = map[string]struct{ read, write []string }{
	"conference": {[]string{"ROOM_EVENTS", "KV_rooms", "KV_leases"}, []string{"$KV.rooms.main", "$KV.leases.conference.main"}},
	"media":      {[]string{"KV_leases"}, []string{"$KV.leases.media.m1"}},
	"bus":        {},
}

func (f *field) sideDoors(conns map[string]*nats.Conn) {
	victim := contract.RoomKick.Subject(bustest.Account, another, "p1")
	for p, nc := range conns {
		for _, q := range append([]string{""}, embed.Processes...) {
			inbox := "_INBOX.x"
			if q != "" {
				inbox = "_INBOX_" + q + ".x"
			}
			f.judge(f.send(nc, inbox, ""), false, "%s answers at %s unasked", p, inbox)
			f.judge(f.receive(nc, inbox, inbox), q == p, "%s reads %s", p, inbox)
			wild := strings.TrimSuffix(inbox, "x") + ">"
			f.judge(f.receive(nc, wild, inbox), q == p, "%s reads %s", p, wild)
		}
		for _, wild := range []string{">", "parley.>", "parley.v1.>", "parley.v1.*.room.>", "parley.v1.*.*.*.>", "_R_.>", "$JS.>", "$KV.>", "$SYS.>", "$SRV.>"} {
			at := victim
			if prefix := strings.TrimSuffix(wild, ">"); strings.HasPrefix(prefix, "$") || strings.HasPrefix(prefix, "_") {
				at = prefix + "x"
			}
			f.judge(f.receive(nc, wild, at), false, "%s reads %s", p, wild)
		}
		for _, verb := range []string{"PING", "INFO", "STATS"} {
			for _, q := range embed.Processes {
				s := "$SRV." + verb + ".parley-" + q
				f.judge(f.send(nc, s, ""), p == "cli", "%s asks %s", p, s)
				serves := q != "cli"
				f.judge(f.receive(nc, s, s), q == p && serves, "%s answers for %s", p, s)
				f.judge(f.receive(nc, s+".id1", s+".id1"), q == p && serves, "%s answers for %s", p, s+".id1")
			}
		}
		for _, s := range []string{"$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE",
			"$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.USER.INFO", "$SYS.ACCOUNT.X.CONNECT", "$SYS.REQ.SERVER.X.KICK", "$SYS.REQ.SERVER.X.RELOAD"} {
			f.judge(f.send(nc, s, ""), false, "%s sends %s", p, s)
		}
		f.jetStreamDoors(p, nc, victim)
	}
}

// jetStreamDoors tries the whole API. The observer sees a request that the server
// let through; deliver subject and reply subject are the victim's.
func (f *field) jetStreamDoors(p string, nc *nats.Conn, victim string) {
	may := stores[p]
	for _, stream := range []string{"ROOM_EVENTS", "KV_rooms", "KV_leases", "EVIL"} {
		read := slices.Contains(may.read, stream)
		for _, api := range []string{"STREAM.INFO.%s", "STREAM.MSG.GET.%s"} {
			s := "$JS.API." + fmt.Sprintf(api, stream)
			f.judge(f.send(nc, s, "_INBOX_"+p+".js"), read || p == "bus" && api == "STREAM.INFO.%s", "%s sends %s", p, s)
		}
		s := "$JS.API.STREAM.PURGE." + stream
		f.judge(f.send(nc, s, ""), p == "conference" && stream == "ROOM_EVENTS", "%s sends %s", p, s)
		for _, api := range []string{"STREAM.CREATE.%s", "STREAM.UPDATE.%s"} {
			s := "$JS.API." + fmt.Sprintf(api, stream)
			f.judge(f.send(nc, s, victim), p == "bus", "%s sends %s", p, s)
		}
		for _, api := range []string{"STREAM.DELETE.%s", "STREAM.MSG.DELETE.%s", "STREAM.SNAPSHOT.%s", "STREAM.RESTORE.%s",
			"STREAM.PEER.REMOVE.%s", "STREAM.LEADER.STEPDOWN.%s", "DIRECT.GET.%s", "DIRECT.GET.%s." + victim,
			"CONSUMER.CREATE.%s", "CONSUMER.CREATE.%s.c1", "CONSUMER.CREATE.%s.c1." + victim, "CONSUMER.DURABLE.CREATE.%s.c1",
			"CONSUMER.MSG.NEXT.%s.c1", "CONSUMER.INFO.%s.c1", "CONSUMER.NAMES.%s", "CONSUMER.LIST.%s", "CONSUMER.DELETE.%s.c1", "CONSUMER.PAUSE.%s.c1",
			"CONSUMER.UNPIN.%s.c1", "CONSUMER.RESET.%s.c1"} {
			s := "$JS.API." + fmt.Sprintf(api, stream)
			f.judge(f.send(nc, s, victim), false, "%s sends %s", p, s)
		}
		f.judge(f.send(nc, "$JS.ACK."+stream+".c1.1.1.1.1.1", ""), false, "%s acknowledges for %s", p, stream)
		f.judge(f.send(nc, "$JS.FC."+stream+".c1.x", ""), false, "%s controls the flow of %s", p, stream)
		f.judge(f.receive(nc, "$JS.EVENT.ADVISORY.>", "$JS.EVENT.ADVISORY.STREAM.CREATED."+stream), false, "%s reads advisories", p)
	}
	for _, s := range []string{"STREAM.NAMES", "STREAM.LIST", "ACCOUNT.PURGE.X", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "STREAM.TEMPLATE.CREATE.X"} {
		f.judge(f.send(nc, "$JS.API."+s, ""), false, "%s sends $JS.API.%s", p, s)
	}
	for _, s := range []string{"$KV.rooms.main", "$KV.rooms.board", "$KV.leases.conference.main", "$KV.leases.media.m1", "$KV.leases.swarm.main", "$KV.leases.x", "$KV.other.x"} {
		want := slices.Contains(may.write, s) || s == "$KV.rooms.board" && p == "conference"
		f.judge(f.send(nc, s, ""), want, "%s writes %s", p, s)
		f.judge(f.receive(nc, s, s), false, "%s reads %s as it is written", p, s)
	}
}

// ofBot says what a bot with these rights reaches of its own room, by name.
func ofBot(rights []contract.Right) []string {
	names := []string{"room.join", "room.leave", "room.get", "room.replay", "room.lease", "room.hand", "room.mute", "room.event"}
	for _, r := range rights {
		names = append(names, map[contract.Right][]string{
			contract.RightListen:   {"room.listen", "audio.mix", "audio.others", "audio.from"},
			contract.RightSpeak:    {"audio.say"},
			contract.RightChat:     {"room.chat", "room.history"},
			contract.RightModerate: {"room.kick", "room.role", "room.lock"},
			contract.RightCall:     {"room.call", "room.hangup", "room.calling"},
			contract.RightPresence: {"presence.list", "presence.changed"},
			contract.RightMessages: {"message.send", "message.received", "message.state"},
			contract.RightFiles:    {"file.offer", "file.remove", "file.get", "file.cancel", "file.list", "file.transfer"},
		}[r]...)
	}
	return names
}

// fill returns d's subject with the account, room and bot given, "x" elsewhere.
func fill(d *contract.Def, account, room, bot string) string {
	params := d.Params()
	for i, p := range params {
		params[i] = map[string]string{"account": account, "room": room, "caller": bot, "bot": bot, "listener": bot}[p]
		if params[i] == "" {
			params[i] = "x"
		}
	}
	return d.Subject(params...)
}

func (f *field) contractOfBots() {
	kits := [][]contract.Right{nil, {contract.RightListen}, {contract.RightSpeak}, {contract.RightChat}, {contract.RightModerate}, {contract.RightCall}, {contract.RightPresence}, {contract.RightMessages}, {contract.RightFiles}, contract.Rights}
	for i, rights := range kits {
		name := fmt.Sprintf("kit%d", i)
		g, kp := f.s.Grant(name, room, rights...)
		nc := f.s.BotConn(echo, g, kp) // the name of the connection alone
		own := ofBot(rights)
		for _, d := range contract.All() {
			s := fill(d, bustest.Account, room, name)
			toService := d.Kind == contract.KindCommand || d.Name == "audio.say"
			if d.Name == "room.event" {
				f.eventsOfBot(nc, name, rights)
				continue
			}
			f.judge(f.send(nc, s, ""), toService && slices.Contains(own, d.Name), "bot with %v sends %s", rights, s)
			f.judge(f.receive(nc, s, s), !toService && slices.Contains(own, d.Name), "bot with %v subscribes %s", rights, s)
			for _, wrong := range []string{fill(d, bustest.Account, another, name), fill(d, strings.Repeat("f", 40), room, name),
				fill(d, bustest.Account, room, contract.Operator), fill(d, bustest.Account, room, "kit9")} {
				if wrong == s || d.Right == "" {
					continue
				}
				if toService {
					f.judge(f.send(nc, wrong, ""), false, "bot of %s/%s sends %s", room, name, wrong)
				} else {
					f.judge(f.receive(nc, wrong, wrong), false, "bot of %s/%s subscribes %s", room, name, wrong)
				}
			}
		}
	}
}

// eventsOfBot: what is said in the chat is not for everybody, however it is asked for.
func (f *field) eventsOfBot(nc *nats.Conn, name string, rights []contract.Right) {
	for _, t := range contract.RoomEventTypes {
		s := contract.RoomEvents.Subject(bustest.Account, room, string(t))
		want := t != contract.EventChat || slices.Contains(rights, contract.RightChat)
		f.judge(f.send(nc, s, ""), false, "bot with %v sends %s", rights, s)
		for _, as := range []string{s, contract.RoomEvents.Subject(bustest.Account, room), strings.TrimSuffix(s, string(t)) + ">"} {
			f.judge(f.receive(nc, as, s), want, "bot with %v subscribes %s as %s", rights, s, as)
		}
		for _, wrong := range []string{contract.RoomEvents.Subject(bustest.Account, another, string(t)),
			contract.RoomEvents.Subject(strings.Repeat("f", 40), room, string(t))} {
			f.judge(f.receive(nc, wrong, wrong), false, "bot of %s/%s subscribes %s", room, name, wrong)
		}
	}
}

func (f *field) botDoors() {
	nc := f.s.Bot(echo, room, contract.Rights...)
	nc.Opts.Name = echo
	event := contract.RoomEvents.Subject(bustest.Account, another, "joined")
	for _, s := range []string{">", "parley.>", "parley.v1.*.room.>", "parley.v1.*.room.*.event.>", "parley.v1." + bustest.Account + ".room.*.event.>"} {
		f.judge(f.receive(nc, s, event), false, "bot reads %s", s)
	}
	for _, p := range embed.Processes {
		in := "_INBOX_" + p + ".x"
		f.judge(f.receive(nc, in, in), false, "bot reads %s", in)
		f.judge(f.receive(nc, "_INBOX.>", in), false, "bot reads the inbox of %s", p)
		f.judge(f.send(nc, in, ""), false, "bot writes %s", in)
	}
	f.judge(f.receive(nc, "_INBOX.>", "_INBOX.x"), false, "bot reads inboxes of the account NODE")
	f.judge(f.receive(nc, "_R_.>", "_R_.x"), false, "bot reads replies to others")
	f.judge(f.send(nc, "_INBOX.x", ""), false, "bot writes an inbox")
	f.jetStreamDoors("bot", nc, contract.RoomKick.Subject(bustest.Account, another, "p1"))
	for _, s := range []string{"$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.CLAIMS.UPDATE", "$SRV.PING", "$SRV.INFO.parley-identity"} {
		f.judge(f.send(nc, s, ""), false, "bot sends %s", s)
		f.judge(f.receive(nc, s, s), false, "bot serves %s", s)
	}
}
