// Package config is what an operator can decide. Every key is optional. A value
// comes from, in rising order: the default, the file (YAML), the environment
// (PARLEY_HTTP_LISTEN for http.listen), a flag.
package config

import "path/filepath"

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
	Jami     Jami     `koanf:"jami"`
	TURN     TURN     `koanf:"turn"`
	Connect  Connect  `koanf:"connect"`
}

// Bus configures the NATS server, or which one to use.
type Bus struct {
	Listen string `koanf:"listen" default:"127.0.0.1:4223" check:"fixed" doc:"address of the embedded bus. Beyond loopback it speaks TLS"`
	URL    string `koanf:"url" default:"" check:"nats" doc:"use this NATS server instead of the embedded one; of a cluster several, with commas between"`
	Public string `koanf:"public_url" default:"" check:"nats" doc:"address of the bus that bots and workers are told, when it differs from what the node sees; of a cluster all of them, with commas between"`

	OperatorKey string `koanf:"operator_key" default:"" doc:"file with a key of the operator of the NATS at bus.url, a seed SO…, readable by the node alone: the node then makes its account, users, bots and workers there itself, as with its own bus. Who has the key has all of that NATS"`
	SystemCreds string `koanf:"system_creds" default:"" doc:"credentials file, readable by the node alone, of a user of the system account of the NATS at bus.url, which bus.operator_key needs"`

	Cert      string   `koanf:"cert" default:"" doc:"PEM file of the bus's certificate, read again when it changes; without one the bus makes its own, which credentials files say how to verify"`
	Key       string   `koanf:"key" default:"" doc:"PEM file of the certificate's key"`
	CA        string   `koanf:"ca" default:"" doc:"PEM file of who certifies bus.cert, or the servers at bus.url; without one the system's authorities do"`
	Processes []string `koanf:"processes" check:"prefix" doc:"networks that the node's own processes come from, beside this machine: of containers. With bus.operator_key, as the servers at bus.url see them; none: from anywhere"`

	ClusterListen    string   `koanf:"cluster_listen" default:"" check:"addr or off" doc:"address for the other servers of the bus: with it the bus is a cluster of several machines, best three. They prove to each other that they have the same bus/keys"`
	ClusterRoutes    []string `koanf:"cluster_routes" check:"node" doc:"HOST:PORT of the other servers' bus.cluster_listen"`
	ClusterAdvertise string   `koanf:"cluster_advertise" default:"" check:"node or none" doc:"HOST:PORT that other servers reach bus.cluster_listen at, when it differs"`
	ClusterServer    string   `koanf:"cluster_server" default:"" check:"room" doc:"name of this server in the cluster, another for each and always the same; without it, the machine's"`
	Replicas         int      `koanf:"replicas" default:"0" range:"0-5" doc:"how many servers of a cluster keep each stream: 3 go on without one of them. 0: 3, and 1 with bus.url"`
	Member           bool     `koanf:"member" default:"false" doc:"this is a further server of a cluster, whose node is on another machine: \"parley run bus\" with a copy of its bus/keys"`
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

	CallHosts []string `koanf:"call_hosts" check:"call" doc:"hosts whose phones may be called into a room: NAME, ADDRESS or PREFIX; without any no phone is called"`
}

// Connect configures the process that takes calls.
type Connect struct {
	Name string `koanf:"name" default:"" check:"word or none" doc:"name of this process where it takes the calls of browsers and phones for a node that runs elsewhere; parley join gives it"`
}

// Media configures where audio travels.
type Media struct {
	Worker  string   `koanf:"worker" default:"m1" check:"word" doc:"name of this media process"`
	Listen  string   `koanf:"listen" default:":24000" check:"fixed" doc:"first UDP port; the node uses this one and the next 257. The default is below the ports that systems give to outgoing connections"`
	Public  []string `koanf:"public" check:"ip" doc:"addresses to name in SDP, when they differ from what the node sees"`
	Loudest int      `koanf:"loudest" default:"4" range:"1-8" doc:"how many speakers are mixed at once"`

	MaxLegs int `koanf:"max_legs" default:"0" range:"0-100000" doc:"how many participants this process takes; who comes beyond goes to another worker, or is refused. 0: as many as come"`

	Near []string `koanf:"near" check:"prefix" doc:"networks whose people this process is near to, e.g. 192.0.2.0/24: they come here while it has place, wherever their room began. Without a length, as 192.0.2.5, it is that one address. Of several workers the one with the longest prefix counts as nearest"`

	Shed bool `koanf:"shed" default:"true" doc:"when this process cannot keep its time, who only listens gets longer packets (40, then 60 ms), and when that is not enough, no more participants are taken until it can"`

	STUN        []string `koanf:"stun" check:"node" doc:"STUN servers that are asked for the node's public address, which SDP then names beside what the node sees; without a port, 3478. Not used with media.public"`
	PortMapping string   `koanf:"port_mapping" default:"off" enum:"off,upnp,natpmp,any" doc:"ask the router to let in what comes to the node's ports for audio, SIP and HTTPS, by UPnP, NAT-PMP, or whichever answers; its public address is then named in SDP"`
}

// DHT configures the overlay.
type DHT struct {
	Overlay   string   `koanf:"overlay" default:"libp2p" enum:"libp2p,opendht,both,proxy" doc:"network that values are kept in; opendht is the one of Jami's stock clients, proxy the same one over HTTP, for where UDP is blocked"`
	Listen    string   `koanf:"listen" default:"0.0.0.0:4222" check:"addr or off" doc:"address of the overlay libp2p (TCP and QUIC)"`
	Bootstrap []string `koanf:"bootstrap" check:"multiaddr" doc:"libp2p peers to start from"`

	OpenDHTListen    string   `koanf:"opendht_listen" default:":4224" check:"addr" doc:"address of the overlay opendht (UDP); without a host, IPv4 and IPv6"`
	OpenDHTBootstrap []string `koanf:"opendht_bootstrap" check:"node" doc:"OpenDHT nodes to start from, e.g. bootstrap.jami.net for the public network; without a port, 4222"`

	Network               int    `koanf:"network" default:"0" range:"0-4294967295" doc:"number of OpenDHT's network; nodes of another one are not heard. 0 is the public one"`
	Store                 int    `koanf:"store" default:"0" range:"0-4096" doc:"MiB of others' values that are kept in the overlay opendht; 0 is 64, and 8 for \"parley run dht --bootstrap\""`
	ProxyListen           string `koanf:"proxy_listen" default:"" check:"addr or off" doc:"address at which clients use the DHT by HTTP, as a DHT proxy; HTTPS with dht.proxy_cert"`
	ProxyCert             string `koanf:"proxy_cert" default:"" doc:"PEM file of the DHT proxy's certificate, read again when it changes"`
	ProxyKey              string `koanf:"proxy_key" default:"" doc:"PEM file of the certificate's key"`
	PushPrivate           bool   `koanf:"push_private" default:"false" doc:"clients of the DHT proxy may have push services in private networks, and without TLS"`
	PushContact           string `koanf:"push_contact" default:"" doc:"whom push services may write to about this server (VAPID): an address, or an https:// URL"`
	PushGorush            string `koanf:"push_gorush" default:"" check:"url" doc:"gorush server that pushes to Android and iOS"`
	PushWebhookSecretFile string `koanf:"push_webhook_secret_file" default:"" doc:"file whose first line signs webhooks; without one there are none"`

	Proxy   []string `koanf:"proxy" check:"proxy" doc:"DHT proxies that the overlay proxy uses, the preferred first, e.g. http://dhtproxy.jami.net:[80-95]"`
	ProxyCA string   `koanf:"proxy_ca" default:"" doc:"PEM file of who certifies the DHT proxies; without one the system's authorities do"`
}

// Identity configures the account.
type Identity struct {
	Create       bool   `koanf:"create" default:"true" doc:"make an account at the first start; else the node waits until one is created, imported or linked"`
	PasswordFile string `koanf:"password_file" default:"" doc:"file whose first line is the password of the account's archive, if it has one"`
	StorageKey   string `koanf:"storage_key_file" default:"" doc:"file whose first line is the key that encrypts the private keys on the disk, which without one are in clear; PARLEY_IDENTITY_STORAGE_KEY is the key itself"`
}

// Jami configures the connections to devices of Jami accounts.
type Jami struct {
	Listen string   `koanf:"listen" default:":4225" check:"addr or off" doc:"TCP address to which Jami devices connect"`
	Public []string `koanf:"public" check:"ip" doc:"addresses to name to devices, beside those that the node sees; its port is the one of jami.listen"`

	UDP     string `koanf:"udp" default:"on" enum:"on,off" doc:"offer other nodes connections by UDP too (ICE, DTLS, SCTP), at the port of jami.listen, for where TCP does not get through; the STUN servers of media.stun are asked under which address it is seen"`
	MaxFile int    `koanf:"max_file" default:"1024" range:"1-2047" doc:"MiB of a file that is given to Jami devices or got from them"`
}

// Rooms configures rooms.
type Rooms struct {
	Default string `koanf:"default" default:"main" check:"room" doc:"room that exists from the start"`

	Moderators []string `koanf:"moderators" check:"jami" doc:"Jami Ids of who is a moderator in every room, when a device of it calls"`
	Lease      bool     `koanf:"lease" default:"false" doc:"the rooms are held by a lease, since conference runs on other machines too; always so with bus.cluster_listen and with bus.operator_key"`

	AllModerators bool `koanf:"all_moderators" default:"false" doc:"everybody who joins is a moderator, as at a stock Jami rendezvous"`
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
	StorageKey string `koanf:"storage_key_file" default:"" doc:"file whose first line is the key that encrypts the keys in its directory, which without one are in clear; PARLEY_JAMS_STORAGE_KEY is the key itself"`
	Users      string `koanf:"users" default:"" doc:"file of the users, read again when it changes; without one it is users.yaml in its directory"`
	LDAPURL    string `koanf:"ldap_url" default:"" check:"ldap" doc:"directory to ask instead of the file"`
	LDAPUserDN string `koanf:"ldap_user_dn" default:"" doc:"DN to bind as, with {user} for the name, e.g. uid={user},ou=people,dc=example,dc=org"`
	LDAPCA     string `koanf:"ldap_ca" default:"" doc:"PEM file of who certifies the directory; without one the system's authorities do"`
	LDAPPlain  bool   `koanf:"ldap_plain" default:"false" doc:"ldap:// without StartTLS: passwords travel in clear"`
	NameServer string `koanf:"name_server" default:"" check:"url" doc:"name server that accounts are told to use"`
}

// TURN configures the relay, which is no part of a node, and which relays the node
// hands to its browsers.
type TURN struct {
	Listen       string   `koanf:"listen" default:":3478" check:"addr" doc:"address of the relay (\"parley run turn\"): STUN and TURN over UDP and TCP. On a machine with several addresses name the one that clients use"`
	TLSListen    string   `koanf:"tls_listen" default:"" check:"addr or off" doc:"TURN over TLS, which needs turn.cert; :443 gets through most firewalls"`
	Cert         string   `koanf:"cert" default:"" doc:"PEM file of its certificate, read again when it changes"`
	Key          string   `koanf:"key" default:"" doc:"PEM file of the certificate's key"`
	Public       []string `koanf:"public" check:"ip" doc:"addresses that relayed packets come from, one IPv4 and one IPv6, when they differ from what the machine sees"`
	Ports        string   `koanf:"ports" default:"49152-65535" check:"ports" doc:"ports that relay, UDP and TCP"`
	Realm        string   `koanf:"realm" default:"parley" check:"host" doc:"realm of the credentials; stock Jami apps have to be given the same"`
	SecretFile   string   `koanf:"secret_file" default:"" doc:"file whose first line is the secret that signs short-lived credentials, shared by the relay and the node; PARLEY_TURN_SECRET is the secret itself; without either it is made in turn/secret in the data directory"`
	UsersFile    string   `koanf:"users_file" default:"" doc:"file of lasting credentials for stock Jami apps, a line USER:PASSWORD each, read again when it changes"`
	UserQuota    int      `koanf:"user_quota" default:"32" range:"1-65535" doc:"allocations that one user has at once"`
	AddressQuota int      `koanf:"address_quota" default:"512" range:"1-65535" doc:"allocations, and TCP connections, that one address has at once"`
	Quota        int      `koanf:"quota" default:"10000" range:"1-65535" doc:"allocations in all"`
	Bandwidth    int      `koanf:"bandwidth" default:"4000" range:"16-1000000" doc:"kbit/s of one allocation in each direction"`
	Lifetime     int      `koanf:"lifetime" default:"24" range:"1-168" doc:"hours after which an allocation ends, refreshed or not"`
	AllowPeers   []string `koanf:"allow_peers" check:"peer" doc:"what is relayed to although it is private or this machine: PREFIX, ADDRESS or ADDRESS:PORT. The node's audio ports on this machine are always relayed to"`

	URLs    []string `koanf:"urls" check:"turn" doc:"relays that know the secret, as browsers and the node reach them, e.g. turn:turn.example.org:3478?transport=tcp or turns:turn.example.org:443"`
	Servers string   `koanf:"servers_file" default:"" doc:"YAML file of other relays: a list of urls with username and password, or with secret"`
	Node    bool     `koanf:"node" default:"true" doc:"the node has relays of its own on these servers, by which Jami peers reach it and are reached that nothing else brings together; off: they are for browsers alone"`
	Minutes int      `koanf:"credential_minutes" default:"60" range:"5-1440" doc:"how long a credential that a browser was handed opens allocations"`
}

// LeasedRooms reports whether who has the rooms holds a lease, so that a conference on another machine may stand by.
func (c *Config) LeasedRooms() bool {
	return c.Rooms.Lease || c.Bus.ClusterListen != "" || c.Bus.OperatorKey != ""
}

// JAMSDir is the directory of the account server.
func (c *Config) JAMSDir() string {
	if c.JAMS.Data != "" {
		return c.JAMS.Data
	}
	return filepath.Join(c.Data, "jams")
}

// MediaPorts is how many UDP ports the media process uses: one for WebRTC and
// 128 pairs for RTP and RTCP, and one between that keeps the pairs even. Phones share
// the first pairs, told apart by where their packets come from; the others are for
// those that can't be: several calls that name one and the same address.
const MediaPorts = 2 + 2*128
