package swarm

import (
	"encoding/json"
	"maps"
	"testing"
)

func FuzzRooms(f *testing.F) {
	f.Add([]byte(`{"main":"0123456789012345678901234567890123456789"}`))
	f.Add([]byte(`{"Main":"0"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ids, err := parseRooms(text)
		if err != nil {
			return
		}
		for room := range ids {
			if !validRoom(room) {
				t.Errorf("room %q", room)
			}
		}
		b, err := json.Marshal(ids)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseRooms(b); err != nil || !maps.Equal(again, ids) {
			t.Errorf("%v became %v, %v", ids, again, err)
		}
	})
}
