// SPDX-License-Identifier: Apache-2.0

// Package conference is the process that keeps the rooms: who is in, what each
// may do, where each leg is mixed, and what happened, in order.
//
// It serves the room commands of package contract and publishes room events. Each
// room is an actor ([live] in a [actor.Registry]); the rules are in package room,
// which is pure. What the room decided leaves it in this order: journal (page
// cache), then event, then orders to media. So whatever anybody saw survives the
// death of this process. Settings, roles, mutes by a moderator and removals are on
// the disk before they are acknowledged; a join never waits for the disk or for
// JetStream.
//
// # After a death
//
//   - of this process: the journal gives the roster back; nobody leaves. Legs are
//     compared with what the media worker has.
//   - of a media worker: a beat with a new Started word. Legs that the worker
//     took over go on; bots' legs are opened again here; who else lost the leg is
//     told by an event "media" and keeps the seat for [room.ConnectTime].
//   - of connect: nothing; participants stay as long as their audio comes.
//   - of the bus: events are kept and published, in order, when it is back. An event
//     that was not confirmed is published again: readers pass over a Seq that they
//     have seen.
//   - of swarm: chat is refused with "unavailable", nothing else changes.
//   - of identity: the list of bots and the rendezvous setting stay as they were.
//
// # Bounds
//
// A mailbox takes [mailbox] messages, then refuses with "busy". At most
// [maxHalfOpen] seats wait for audio in the whole process. Of unconfirmed events
// [keepUnconfirmed] a room are kept for JetStream; older ones are counted as lost to
// replay.
//
// Locks: the maps of workers, bots and orders have one each, held for no call out.
package conference
