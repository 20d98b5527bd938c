package contract

import (
	"cmp"
	"strings"
)

// Process is one process of the node. UpS and CPUS are seconds, RSS is bytes.
type Process struct {
	Name     string  `json:"name"`
	PID      int     `json:"pid"` // 0 while it is down
	UpS      float64 `json:"up_s"`
	CPUS     float64 `json:"cpu_s"`
	RSSBytes int64   `json:"rss_bytes"`
	Restarts int     `json:"restarts"`
	Ready    bool    `json:"ready"`
}

// Links is how people reach the node.
type Links struct {
	Join     string `json:"join"`
	Others   string `json:"others,omitempty"` // Join for other machines, where Join is for this one alone
	Operator string `json:"operator"`
	SIP      string `json:"sip"`
	Jami     string `json:"jami"`
}

// RoomLinks is how people reach one room.
type RoomLinks struct {
	Join      string `json:"join"`
	Others    string `json:"others,omitempty"`
	SIP       string `json:"sip,omitempty"`
	Moderator string `json:"moderator,omitempty"` // makes a moderator of who opens it: keep it secret
}

// Room returns the links of a room of the node. token is the room's moderator token
// or empty.
func (l Links) Room(name, token string) RoomLinks {
	page := func(link string) string {
		if link == "" {
			return ""
		}
		base, _, _ := strings.Cut(link, "/r/")
		return strings.TrimRight(base, "/") + "/r/" + name
	}
	r := RoomLinks{Join: page(l.Join), Others: page(l.Others)}
	if l.SIP != "" {
		host := strings.TrimPrefix(l.SIP, "sip:")
		if _, after, ok := strings.Cut(host, "@"); ok {
			host = after
		}
		r.SIP = "sip:" + name + "@" + host
	}
	if link := cmp.Or(r.Others, r.Join); token != "" && link != "" {
		r.Moderator = link + "#token=" + token // a fragment stays in the browser
	}
	return r
}

// NodeProcesses is the supervisor's view.
type NodeProcesses struct {
	Processes []Process `json:"processes"`
}

// Endpoints is what connect listens on.
type Endpoints struct {
	Links     Links             `json:"links"`
	Listeners map[string]string `json:"listeners"` // "http", "https", "sip/udp", "sip/tcp", "sip/tls" -> address
}

// The subjects of the supervisor and of connect.
var (
	NodeStatus    = query[None, NodeProcesses]("up", "node.processes", "node.up.processes", "the processes of this node", "")
	ConnectStatus = query[None, Endpoints]("connect", "connect.status", "{account}.connect.status", "links and listening addresses", "")
)
