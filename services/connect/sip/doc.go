// Package sip is the node's SIP user agent server (RFC 3261): a phone that
// calls sip:ROOM@host is in the room. No registration is needed. A room with a PIN
// asks for digest authentication (RFC 8760 with SHA-256, and MD5 as RFC 3261
// has it): user = the room's name, password = its PIN.
//
// The package knows SIP and dialogs only. Sound is negotiated elsewhere: SDP
// passes through [Rooms] unread.
//
// Dialogs outlive the process: each is a small file in the state directory,
// written before the call is answered, so that a phone can hang up, hold or be
// put out after the process was started again.
//
// Jami devices call on channels of theirs ([Server.Accept]): the same dialogs, with the
// quirks of stock clients (connect-and-calls §3). These end with their channel.
//
// The node calls too ([Server.Call]): all devices of a Jami account, the first of which that
// takes the call has it, or a phone. From its 2xx on such a call is as one that came in.
//
//	Request          answer
//	INVITE           100, then 200 with the room's SDP, or a refusal (see status.go)
//	re-INVITE        a new negotiation: hold, resume, changed address
//	UPDATE           the same (RFC 3311)
//	                 491 while an offer of ours is out
//	ACK              confirms; may carry the answer to our offer
//	BYE, CANCEL      the caller leaves
//	OPTIONS          what is supported; 404 for a room that isn't there
//	any with Require 420: no extension is spoken
//	INFO, MESSAGE    of a Jami peer: 200; else 415 and 405: keys come as telephone-event (RFC 4733)
//	REGISTER, others 405 with Allow
package sip
