// Package config is what an operator can decide. Every key is optional. A value
// comes from, in rising order: the default, the file (YAML), the environment
// (PARLEY_HTTP_LISTEN for http.listen), a flag.
package config

// Config is the whole of it. The tags are the keys; `doc` and `default` make the
// sample file and the reference; `check` (see checks.go), `enum` and `range` say
// what is allowed.
type Config struct {
	Data string `koanf:"data" check:"path" doc:"directory that the node owns"`

	Bus      Bus      `koanf:"bus"`
	HTTP     HTTP     `koanf:"http"`
	SIP      SIP      `koanf:"sip"`
	Media    Media    `koanf:"media"`
	DHT      DHT      `koanf:"dht"`
	Rooms    Rooms    `koanf:"rooms"`
	Log      Log      `koanf:"log"`
	Trace    Trace    `koanf:"trace"`
	Admin    Admin    `koanf:"admin"`
	Names    Names    `koanf:"names"`
	JAMS     JAMS     `koanf:"jams"`
	Identity Identity `koanf:"identity"`
}

// Bus configures the NATS server, or which one to use.
type Bus struct {
	Listen string `koanf:"listen" default:"127.0.0.1:4223" check:"fixed" doc:"address of the embedded bus"`
	URL    string `koanf:"url" default:"" check:"nats" doc:"use this NATS server instead of the embedded one"`
	Public string `koanf:"public_url" default:"" check:"nats" doc:"address of the bus that bots are told, when it differs from what the node sees"`
}

// HTTP configures the page, the API and WHIP/WHEP.
type HTTP struct {
	Listen    string `koanf:"listen" default:":8080" check:"addr or off" doc:"plain HTTP, for localhost and for a reverse proxy"`
	TLSListen string `koanf:"tls_listen" default:":8443" check:"addr or off" doc:"HTTPS; browsers give a microphone only to https and localhost"`
	Cert      string `koanf:"cert" default:"" doc:"PEM file; without one the node makes its own certificate"`
	Key       string `koanf:"key" default:"" doc:"PEM file of the certificate's key"`
	URL       string `koanf:"url" default:"" check:"url" doc:"public address of the page, when it differs from what the node sees"`
}

// SIP configures the SIP user agent server.
type SIP struct {
	Listen    string `koanf:"listen" default:":5060" check:"addr or off" doc:"UDP and TCP"`
	TLSListen string `koanf:"tls_listen" default:":5061" check:"addr or off" doc:"TLS"`
	Host      string `koanf:"host" default:"" check:"host" doc:"host name or address in sip:ROOM@HOST, when it differs from what the node sees"`
	Digest    string `koanf:"digest" default:"md5" enum:"md5,both" doc:"what a room with a PIN asks phones for. md5 is what all of them know; both offers SHA-256 first, at which some (baresip before 3.0) give up"`
}

// Media configures where audio travels.
type Media struct {
	Worker  string   `koanf:"worker" default:"m1" check:"word" doc:"name of this media process"`
	Listen  string   `koanf:"listen" default:":24000" check:"fixed" doc:"first UDP port; the node uses this one and the next 257. The default is below the ports that systems give to outgoing connections"`
	Public  []string `koanf:"public" check:"ip" doc:"addresses to name in SDP, when they differ from what the node sees"`
	Loudest int      `koanf:"loudest" default:"4" range:"1-8" doc:"how many speakers are mixed at once"`
}

// DHT configures the overlay.
type DHT struct {
	Listen    string   `koanf:"listen" default:"0.0.0.0:4222" check:"addr or off" doc:"address of the overlay (libp2p: TCP and QUIC)"`
	Bootstrap []string `koanf:"bootstrap" check:"multiaddr" doc:"peers to start from"`
}

// Identity configures the account.
type Identity struct {
	PasswordFile string `koanf:"password_file" default:"" doc:"file whose first line is the password of the account's archive, if it has one"`
}

// Rooms configures rooms.
type Rooms struct {
	Default string `koanf:"default" default:"main" check:"room" doc:"room that exists from the start"`
}

// Log configures logging.
type Log struct {
	Level  string `koanf:"level" default:"info" enum:"debug,info,warn,error" doc:"what is logged, from most to least"`
	Format string `koanf:"format" default:"auto" enum:"auto,json,text" doc:"auto is text on a terminal, else json"`
}

// Trace configures tracing.
type Trace struct {
	Endpoint string `koanf:"endpoint" default:"" check:"url" doc:"OTLP/HTTP URL that gets the traces"`
}

// Admin configures health and metrics.
type Admin struct {
	Listen string `koanf:"listen" default:"127.0.0.1:9090" check:"addr or off" doc:"address of /metrics, /healthz and /readyz; of one process where it runs alone"`
}

// Names configures the name server, which is no part of a node.
type Names struct {
	Listen string `koanf:"listen" default:":8090" check:"addr" doc:"address of the name server (\"parley run names\"): HTTP, or HTTPS with names.cert"`
	Data   string `koanf:"data" default:"" doc:"directory of its database; without one it is names in the data directory"`
	Cert   string `koanf:"cert" default:"" doc:"PEM file of its certificate, read again when it changes"`
	Key    string `koanf:"key" default:"" doc:"PEM file of the certificate's key"`
}

// JAMS configures the account server, which is no part of a node.
type JAMS struct {
	Listen     string `koanf:"listen" default:":8092" check:"addr" doc:"address of the account server (\"parley run jams\"): HTTPS"`
	Data       string `koanf:"data" default:"" doc:"directory of its accounts and its authority; without one it is jams in the data directory"`
	Cert       string `koanf:"cert" default:"" doc:"PEM file of its certificate, read again when it changes; without one it makes its own, which clients have to be told to trust"`
	Key        string `koanf:"key" default:"" doc:"PEM file of the certificate's key"`
	CACert     string `koanf:"ca_cert" default:"" doc:"PEM file of the organisation's authority, which issues accounts; without one it makes its own"`
	CAKey      string `koanf:"ca_key" default:"" doc:"PEM file of the authority's RSA key, not encrypted"`
	Users      string `koanf:"users" default:"" doc:"file of the users, read again when it changes; without one it is users.yaml in its directory"`
	LDAPURL    string `koanf:"ldap_url" default:"" check:"ldap" doc:"directory to ask instead of the file"`
	LDAPUserDN string `koanf:"ldap_user_dn" default:"" doc:"DN to bind as, with {user} for the name, e.g. uid={user},ou=people,dc=example,dc=org"`
	LDAPCA     string `koanf:"ldap_ca" default:"" doc:"PEM file of who certifies the directory; without one the system's authorities do"`
	LDAPPlain  bool   `koanf:"ldap_plain" default:"false" doc:"ldap:// without StartTLS: passwords travel in clear"`
	NameServer string `koanf:"name_server" default:"" check:"url" doc:"name server that accounts are told to use"`
}

// MediaPorts is how many UDP ports the media process uses: one for WebRTC and
// 128 pairs for RTP and RTCP, and one between that keeps the pairs even. Phones share
// the first pairs, told apart by where their packets come from; the others are for
// those that can't be: several calls that name one and the same address.
const MediaPorts = 2 + 2*128
