package contract

// Right is what a bot may be granted, in its room and of the account that the room belongs to.
type Right string

// The rights of bots. RightAny marks subjects that every bot of the room
// reaches, whatever it was granted.
const (
	RightListen   Right = "listen"   // hear the mix and each speaker
	RightSpeak    Right = "speak"    // be heard
	RightChat     Right = "chat"     // read and write the room's chat
	RightModerate Right = "moderate" // mute, kick, lock, change roles
	RightCall     Right = "call"     // call people into the room
	RightPresence Right = "presence" // see which of the account's contacts are online
	RightMessages Right = "messages" // read what is written to the account, and write from it
	RightFiles    Right = "files"    // give files to people and get files from them, as the account
	RightAny      Right = "any"
)

// Rights lists what can be granted.
var Rights = []Right{RightListen, RightSpeak, RightChat, RightModerate, RightCall, RightPresence, RightMessages, RightFiles}
