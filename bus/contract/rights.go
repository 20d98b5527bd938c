package contract

// Right is what a bot may be granted in its room.
type Right string

// The rights of bots. RightAny marks subjects that every bot of the room
// reaches, whatever it was granted.
const (
	RightListen   Right = "listen"   // hear the mix and each speaker
	RightSpeak    Right = "speak"    // be heard
	RightChat     Right = "chat"     // read and write the room's chat
	RightModerate Right = "moderate" // mute, kick, lock, change roles
	RightAny      Right = "any"
)

// Rights lists what can be granted.
var Rights = []Right{RightListen, RightSpeak, RightChat, RightModerate}
