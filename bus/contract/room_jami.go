package contract

// KeyPress is a key that somebody pressed and that came by signalling: of a Jami peer as
// INFO, of phones media tells.
type KeyPress struct {
	Digit string `json:"digit"` // "0"-"9", "*", "#", "A"-"D"
}

// What a room is told of a Jami peer, served by conference.
var (
	RoomPress = command[KeyPress, None]("conference", "room.press", "{account}.room.{room}.cmd.{caller}.press", "a key was pressed", "")
)
