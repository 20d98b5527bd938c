// Package supervise keeps the processes of a node running: it starts them, holds
// their listening sockets, starts again what dies, asks each how it is, gathers
// their metrics and stops them in order.
//
// # Life of a child
//
// All are started at once; each waits for what it needs by itself. A child that
// ends is started again: the first time at once, then after 100 ms, 200 ms, 400 ms
// and so on up to 5 s, each with jitter; after 10 s of running the count begins
// anew. A child gets SIGTERM when the supervisor dies, however it dies.
//
// # Stopping
//
// Children stop in waves, the lowest first, and each wave has a deadline counted
// from the beginning ([waveDeadlines]); who is still there then is killed and
// named in the error. The whole takes less than 5 s. Closing the kill channel ends
// everything at once.
//
// # Goroutines
//
// One for each child that waits for it, one for each that asks for its health, one
// locked to its thread that forks, one that writes output. [Supervisor.Run] waits
// for all of them. No lock is held across a call out of this package; a child's
// lock is held across its fork.
package supervise
