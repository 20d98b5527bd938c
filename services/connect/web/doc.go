// Package web serves browsers and HTTP clients: the pages, the WebSocket by
// which a page signals, WHIP and WHEP, and the operator's API.
//
// It knows nothing of rooms but the JSON that passes through: every action is a
// [Command] to the rest of the node, every fact comes in by [Server.Publish].
// A page's authority is a session token (see [sessions]): whoever holds it acts
// as that participant, through this process or the one that replaces it.
//
// # A socket
//
// One goroutine reads and carries out commands in order (chat and negotiation,
// which may take seconds, beside them), one writes. What is to be written waits in a bounded
// queue; a reader that does not keep up is closed with "slow" and resumes from
// the room's state. Nothing that publishes ever waits for a socket.
//
// # Lock order
//
// hub.mu before socket.mu. Neither is held while calling the node or writing.
//
// docs/http-api.md describes the protocol.
package web
