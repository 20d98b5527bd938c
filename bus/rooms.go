package bus

import (
	"context"

	"github.com/parley-jami/parley/bus/contract"
)

// Rooms returns all rooms, sorted by name, page by page. Rooms that are made or removed
// meanwhile may be among them or not.
func Rooms(ctx context.Context, c *Conn) ([]contract.Room, error) {
	rooms := []contract.Room{}
	var q contract.RoomQuery
	for {
		l, err := Call(ctx, c, contract.RoomListCmd, &q)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, l.Rooms...)
		if l.Next <= q.After { // "" is at the end
			return rooms, nil
		}
		q.After = l.Next
	}
}
