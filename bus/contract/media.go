package contract

// Transport is how a leg's audio travels.
type Transport string

// The transports of a leg.
const (
	TransportWebRTC Transport = "webrtc" // ICE, DTLS-SRTP
	TransportRTP    Transport = "rtp"    // plain RTP or SDES-SRTP, as the SDP says
	TransportJami   Transport = "jami"   // a Jami peer: ICE, SDES-SRTP, RTCP in clear
	TransportBus    Transport = "bus"    // a bot: frames over the bus
)

// Audio formats on the bus. PCM is s16le mono.
const (
	FormatOpus  = "opus"
	FormatPCM16 = "s16le-16000"
	FormatPCM24 = "s16le-24000"
	FormatPCM48 = "s16le-48000"
)

// Formats lists them.
var Formats = []string{FormatOpus, FormatPCM16, FormatPCM24, FormatPCM48}

// LegOpen makes a leg in a room's mix. Repeating it for the same leg and an
// epoch that is not lower is answered with the same leg.
type LegOpen struct {
	Leg   string `json:"leg"` // the participant id
	Room  string `json:"room"`
	Epoch uint64 `json:"epoch"` // of the room's actor
	// Term is the epoch of the lease on which a conference holds all rooms, where several machines may; else 0. A
	// worker that has had an order of a later one refuses it as stale.
	Term      uint64    `json:"term,omitempty"`
	Transport Transport `json:"transport"`
	Offer     string    `json:"offer,omitempty"`    // SDP; empty: the media process makes the offer (rtp, jami)
	Was       string    `json:"was,omitempty"`      // SDP of the leg before: SRTP goes on with the keys that it names, where they fit (rtp)
	Remote    string    `json:"remote,omitempty"`   // IP that the signalling came from
	Unproved  bool      `json:"unproved,omitempty"` // Remote may be forged: nothing is sent before LegSet says Proved
	CanSpeak  bool      `json:"can_speak"`
	Muted     bool      `json:"muted"`
}

// LegOpened answers it.
type LegOpened struct {
	SDP       string `json:"sdp,omitempty"`   // answer, or offer when none was given
	Transport string `json:"transport"`       // "webrtc", "rtp", "srtp", "jami", "bus"
	Codec     string `json:"codec,omitempty"` // "opus", "g722", "pcmu", "pcma"; empty until negotiated
}

// LegSDP brings a new offer (re-INVITE, ICE restart) or the late answer.
type LegSDP struct {
	Leg    string `json:"leg"`
	Epoch  uint64 `json:"epoch"`
	SDP    string `json:"sdp"`
	Answer bool   `json:"answer"`           // SDP is the answer to the offer that LegOpened gave
	Remote string `json:"remote,omitempty"` // IP that the signalling comes from now
	Term   uint64 `json:"term,omitempty"`   // of the conference that orders, see LegOpen
}

// LegSet changes what is not nil.
type LegSet struct {
	Leg      string  `json:"leg"`
	Epoch    uint64  `json:"epoch"`
	CanSpeak *bool   `json:"can_speak,omitempty"`
	Muted    *bool   `json:"muted,omitempty"`
	Listen   *Listen `json:"listen,omitempty"` // bus legs
	Proved   bool    `json:"proved,omitempty"` // the far end is where its signalling says
	Term     uint64  `json:"term,omitempty"`   // of the conference that orders, see LegOpen
}

// Listen is what a bot wants to hear, until TTLMs after the last request.
type Listen struct {
	Mix      string `json:"mix,omitempty"`      // format, empty: not wanted
	Others   string `json:"others,omitempty"`   // format of the mix without the bot's own voice, empty: not wanted
	Speakers string `json:"speakers,omitempty"` // format of every loud speaker apart, empty: not wanted
	TTLMs    int64  `json:"ttl_ms,omitempty"`   // 1,000 to 60,000; 10,000 by default; the leg's end ends it too
}

// LegClose ends a leg.
type LegClose struct {
	Leg    string `json:"leg"`
	Epoch  uint64 `json:"epoch"`
	Reason string `json:"reason,omitempty"`
	Term   uint64 `json:"term,omitempty"` // of the conference that orders, see LegOpen
}

// LegInfo is a leg as the worker sees it.
type LegInfo struct {
	Leg       string     `json:"leg"`
	Room      string     `json:"room"`
	Transport string     `json:"transport"`
	Codec     string     `json:"codec"`
	Connected bool       `json:"connected"`
	CanSpeak  bool       `json:"can_speak"`
	Muted     bool       `json:"muted"`
	Speaking  bool       `json:"speaking"`
	Quality   LegQuality `json:"quality"`
	Path      *LegPath   `json:"path,omitempty"` // where it was asked for
}

// LegQuality is what the RTCP reports and the jitter buffer say.
type LegQuality struct {
	PacketsIn  uint64  `json:"packets_in"`
	PacketsOut uint64  `json:"packets_out"`
	LostIn     uint64  `json:"lost_in"`
	LostPct    float64 `json:"lost_pct"`     // of the last interval, what arrives here
	FarLostPct float64 `json:"far_lost_pct"` // of the last interval, what arrives there
	JitterMs   float64 `json:"jitter_ms"`
	RTTMs      float64 `json:"rtt_ms"` // 0: not known
	BufferMs   float64 `json:"buffer_ms"`
	Level      int     `json:"level"` // -dBov, 127 silence
	Remote     string  `json:"remote"`
	Cipher     string  `json:"cipher"`
}

// LegRef names a leg.
type LegRef struct {
	Leg string `json:"leg"`
}

// MediaQuery asks for a page of a worker's legs, in the order of their ids.
type MediaQuery struct {
	After string `json:"after,omitempty"` // the last leg of the page before
	Limit int    `json:"limit,omitempty"` // 1 to 1,000, which is the default
	Room  string `json:"room,omitempty"`  // the legs of that room alone
	Leg   string `json:"leg,omitempty"`   // that leg alone
	Paths bool   `json:"paths,omitempty"` // with how their packets travel
	Term  uint64 `json:"term,omitempty"`  // of the conference that orders, see LegOpen
}

// WorkerInfo is a media worker with a page of its legs.
type WorkerInfo struct {
	Worker    string    `json:"worker"`
	Addresses []string  `json:"addresses"`
	CPU       float64   `json:"cpu"` // cores in use
	Legs      []LegInfo `json:"legs"`
	More      bool      `json:"more,omitempty"` // there are legs after the last one
	// Started is a random word made at each start of the process.
	Started string `json:"started"`
}

// WorkerBeat says that a worker is there; it comes every 400 ms.
type WorkerBeat struct {
	Worker  string   `json:"worker"`
	Started string   `json:"started"`
	Legs    int      `json:"legs"`
	MaxLegs int      `json:"max_legs,omitempty"` // it takes no more; 0: as many as come
	CPU     float64  `json:"cpu"`                // cores in use
	Late    bool     `json:"late,omitempty"`     // it cannot keep its time, and takes no legs until it does
	Near    []string `json:"near,omitempty"`     // networks whose people it is near to: prefixes, at most 64
	At      float64  `json:"at_s"`               // when this was measured, seconds since the process was started
	CPUS    float64  `json:"cpu_s"`              // CPU seconds that it used until then
	RSS     int64    `json:"rss_bytes"`
	// Contract is the version that the worker speaks, Version of this package; 0 is 1.
	Contract int `json:"contract,omitempty"`
	// What other workers need for trunks to this process: its public key (X25519) and the
	// UDP address that they send to, empty when it has none.
	TrunkKey     []byte `json:"trunk_key,omitempty"`
	TrunkAddress string `json:"trunk_address,omitempty"`
}

// Workers are the media workers of the node, by name.
type Workers struct {
	Workers []Worker `json:"workers"`
	Rooms   string   `json:"rooms,omitempty"` // who stood by and has the rooms now; empty: the node
}

// Worker is a media worker: its last beat, and what follows of it.
type Worker struct {
	WorkerBeat
	Alive bool     `json:"alive"`                   // it beats
	Other bool     `json:"other_version,omitempty"` // it speaks another version of the contract, and gets nothing
	Drain bool     `json:"drain"`                   // it gets no more legs, and those that it has go elsewhere
	Rooms []string `json:"rooms"`                   // that have somebody there
}

// Drain empties a worker. Undo: it takes legs again.
type Drain struct {
	Undo bool `json:"undo,omitempty"`
}

// TrunksSet joins a room with the same room at other workers: trunks to those that are not
// named end. A set that is older than the last one is refused.
type TrunksSet struct {
	Room    string      `json:"room"`
	Epoch   uint64      `json:"epoch"`          // of the room's actor
	Version uint64      `json:"version"`        // grows within an epoch
	Peers   []TrunkPeer `json:"peers"`          // none: the room is mixed here alone
	Term    uint64      `json:"term,omitempty"` // of the conference that orders, see LegOpen
}

// TrunkPeer is another worker of a room, as its beat tells of it.
type TrunkPeer struct {
	Worker  string `json:"worker"`
	Started string `json:"started"`
	Key     []byte `json:"key"`
	Address string `json:"address"`
	Nonce   string `json:"nonce"`          // the same at both ends; made anew each time that they are joined
	Leaf    bool   `json:"leaf,omitempty"` // it hears the room's other workers through this one
}

// LegChange is a change of a leg that nobody ordered. State is "connected"
// (first packet from the far end), "lost" (no packets for 10 s, or consent
// withdrawn) or "closed".
type LegChange struct {
	Leg    string `json:"leg"`
	Room   string `json:"room"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// VoiceChange says that somebody began or stopped speaking.
type VoiceChange struct {
	Leg      string `json:"leg"`
	Room     string `json:"room"`
	Speaking bool   `json:"speaking"`
	Level    int    `json:"level"` // -dBov
}

// DigitPressed is a telephone-event (RFC 4733).
type DigitPressed struct {
	Leg   string `json:"leg"`
	Room  string `json:"room"`
	Digit string `json:"digit"` // "0"-"9", "*", "#", "A"-"D"
	MS    int    `json:"ms"`
}

// LegStats comes every 2 s with the legs that changed anything.
type LegStats struct {
	Worker string    `json:"worker"`
	Legs   []LegInfo `json:"legs"`
}

// SayReply answers a frame that a bot says, when it has a reply subject.
type SayReply struct {
	QueuedMs int `json:"queued_ms"` // how long until what was said last is heard
	Dropped  int `json:"dropped"`   // frames refused since the bot joined: the queue is full (10 s), it is muted, or the frame is malformed
}

// The subjects of media. {worker} names one media process.
var (
	MediaLegOpen  = command[LegOpen, LegOpened]("media", "media.leg.open", "{account}.media.{worker}.leg.open", "make a leg", "")
	MediaLegSDP   = command[LegSDP, LegOpened]("media", "media.leg.sdp", "{account}.media.{worker}.leg.sdp", "negotiate a leg again", "")
	MediaLegSet   = command[LegSet, LegInfo]("media", "media.leg.set", "{account}.media.{worker}.leg.set", "mute, let speak, choose what a bot hears", "")
	MediaLegClose = command[LegClose, None]("media", "media.leg.close", "{account}.media.{worker}.leg.close", "end a leg", "")
	MediaTrunks   = command[TrunksSet, None]("media", "media.trunks", "{account}.media.{worker}.trunks", "join a room with the same room at other workers", "")
	MediaInfo     = query[MediaQuery, WorkerInfo]("media", "media.info", "{account}.media.{worker}.info", "the worker and its legs", "")
	MediaBeat     = event[WorkerBeat]("media", "media.beat", "{account}.media.{worker}.event.beat", "the worker is there", "")
	MediaLeg      = event[LegChange]("media", "media.leg", "{account}.media.{worker}.event.leg", "a leg connected, was lost or ended", "")
	MediaVoice    = event[VoiceChange]("media", "media.voice", "{account}.media.{worker}.event.voice", "who speaks", "")
	MediaDigit    = event[DigitPressed]("media", "media.digit", "{account}.media.{worker}.event.digit", "a key was pressed", "")
	MediaStats    = event[LegStats]("media", "media.stats", "{account}.media.{worker}.event.stats", "quality of the legs", "")

	AudioMix    = audio("media", "audio.mix", "{account}.room.{room}.audio.mix.{format}", "the room's mix, 20 ms frames", RightListen)
	AudioOthers = audio("media", "audio.others", "{account}.room.{room}.audio.others.{listener}.{format}", "the room's mix without the voice of the bot that listens, 20 ms frames", RightListen)
	AudioFrom   = audio("media", "audio.from", "{account}.room.{room}.audio.from.{participant}.{format}", "each loud speaker apart, 20 ms frames", RightListen)
	AudioSay    = audio("media", "audio.say", "{account}.room.{room}.audio.say.{bot}", "what a bot says: one or more 20 ms frames; a request is answered with SayReply", RightSpeak)
)
