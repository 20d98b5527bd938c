package web

import (
	"encoding/json"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/turn"
)

// relays is what a participant's browser is told of relays. Nobody else gets it: it
// lets through whatever is sent.
type relays struct {
	Servers []turn.Server `json:"servers"`           // as RTCIceServer
	Seconds int           `json:"seconds,omitempty"` // how long they are taken; 0: for good
}

func (s *Server) relaysFor(at session) *relays {
	list, life := s.cfg.Relays.For(at.participant, time.Now())
	if len(list) == 0 {
		return nil
	}
	return &relays{list, int(life / time.Second)}
}

// relays answers with credentials of now.
func (k *socket) relays(id int64) {
	r := k.s.relaysFor(k.seat())
	if r == nil {
		r = &relays{Servers: []turn.Server{}}
	}
	data, err := json.Marshal(r)
	if err != nil {
		k.s.log.Error("relays do not marshal", zap.Error(err))
		k.fail(id, refusal(err))
		return
	}
	k.reply(id, "relays", data)
}

// linkRelays adds a Link header for each URL (RFC 9725 §4.6). URLs and credentials have
// nothing that would need escaping; package turn sees to that.
func (s *Server) linkRelays(h http.Header, at session) {
	r := s.relaysFor(at)
	if r == nil {
		return
	}
	for _, v := range r.Servers {
		for _, u := range v.URLs {
			link := "<" + u + `>; rel="ice-server"`
			if v.Username != "" {
				link += `; username="` + v.Username + `"; credential="` + v.Credential + `"; credential-type="password"`
			}
			h.Add("Link", link)
		}
	}
}
