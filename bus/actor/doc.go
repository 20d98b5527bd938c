// Package actor keeps things that live long and have state (rooms, legs,
// conversations): each is one goroutine with a bounded mailbox under an address.
//
// A [Registry] holds the actors of one kind. An actor begins when its address gets
// its first message: [Spec].Start loads it from its durable state. A message is a
// function that runs on the actor's goroutine, so state needs no lock:
//
//	rooms := actor.NewRegistry(actor.Spec[*room]{Name: "room", Start: load, Stop: save})
//	n, err := actor.Ask(ctx, rooms, "main", func(ctx context.Context, r *room) (int, error) {
//		return len(r.members), nil
//	})
//
// Order: the messages of one sender to one address run in the order in which they
// were sent. Blocking: Tell never waits; Ask waits for the answer or its context
// alone. A full mailbox refuses with contract.ErrBusy. A handler must not Ask its
// own address: it would wait for itself until its context ends.
//
// Supervision: a panic in a handler answers that message with contract.ErrInternal,
// forgets the state and loads it anew by Start; the messages that wait stay in the
// mailbox. More than Spec.Restarts within Spec.Window end the actor: it refuses with
// contract.ErrUnavailable until the window is over (the model is ergo's restart
// intensity). Passivation: after Spec.Idle without a message an actor is stopped
// and leaves memory until it is needed again (the model is goakt's).
//
// That at most one actor of an address runs in a cluster is the work of [Lease].
package actor
