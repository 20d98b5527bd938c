// Package lasting keeps a connection to a Jami device over the death of its process: the socket is held by
// the supervisor, and beside it a memory, which both processes map, has what the next one needs to go on: the
// keys of TLS 1.3 in both directions, what was read and is not acted upon, what is to be written, and which
// channels are open. The memory has no name and no place on a disk.
//
// # Where the stream is
//
// The process may die between any two instructions, and in the middle of a system call. How many bytes
// the kernel took and gave it says itself (tcp(7): TCP_INFO, SIOCINQ, SIOCOUTQ), so that the memory need not: it has
//
//	in   the position of the first byte that was not acted upon, and where in the memory it lies;
//	     what follows it was read into the memory, as far as the kernel gave
//	out  the position of the last message, and its bytes; what the kernel took of it is not sent again
//
// Both change with one store of a word, which makes one of two copies the valid one. A message lies in the
// memory, sealed and framed, before its first byte is written; keys and numbers are those after it. What was read is
// opened outside of the memory, so that the next process can open it again.
//
// What was acted upon is for the reader to say: [Conn.Took], [Conn.Commit]. Messages that take longer are kept
// by themselves ([Conn.Note]).
//
// On the connection are frames (RFC 4571) with TLS records and STUN messages, as package icetcp has them.
package lasting
