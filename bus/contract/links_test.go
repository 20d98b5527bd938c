package contract

import "testing"

func TestLinksOfARoom(t *testing.T) {
	for _, c := range []struct {
		node Links
		want RoomLinks
	}{
		{Links{Join: "http://localhost:8080/r/main", Others: "https://192.0.2.7:8443/r/main", SIP: "sip:main@192.0.2.7:5070"},
			RoomLinks{Join: "http://localhost:8080/r/board", Others: "https://192.0.2.7:8443/r/board", SIP: "sip:board@192.0.2.7:5070",
				Moderator: "https://192.0.2.7:8443/r/board#token=t"}},
		{Links{Join: "https://talk.example/", SIP: "sip:talk.example"},
			RoomLinks{Join: "https://talk.example/r/board", SIP: "sip:board@talk.example", Moderator: "https://talk.example/r/board#token=t"}},
		{Links{}, RoomLinks{}},
	} {
		if got := c.node.Room("board", "t"); got != c.want {
			t.Errorf("%+v: %+v", c.node, got)
		}
	}
}
