package web

// Bounds for strangers. A company or a school comes from one address, so they
// are wide; what they keep out is the address that wants it all.
const (
	socketsPerIP = 1024
	socketsInAll = 16 << 10
	connsPerIP   = 2048
	connsInAll   = 18 << 10 // leaves room for the rest below the usual 20,000 descriptors
	joinsPerSec  = 20
	joinsBurst   = 200
	asksPerSec   = 50 // unauthenticated requests that cost a command
	asksBurst    = 200
	authPerSec   = 2 // wrong operator tokens
	authBurst    = 20
	msgsPerSec   = 40 // messages of one socket
	msgsBurst    = 120
)
