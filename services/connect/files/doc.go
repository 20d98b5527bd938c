// Package files gives files to Jami devices and gets files from them (connect-and-calls §2.4,
// swarm §5). Who wants a file opens a channel to a device that has it:
//
//	data-transfer://CONVERSATION/DEVICE/COMMIT_TID[.EXT][?start=N&end=M]
//
//	CONVERSATION  40 hex digits
//	DEVICE        long id of the device that opens the channel, 64 hex digits
//	COMMIT        the commit that announces the file, 40 hex digits
//	TID           the number that it gives the file, decimal
//	EXT           what follows the last dot of the file's name: 1 to 7 bytes
//	start, end    bytes; end is 0 for all that there is
//
// The other side writes the bytes as they are, in messages of at most 65535, and closes the
// channel. Nothing on the channel says how many there are, nor of what file: size and SHA3-512
// are in the announcement, by which the receiver judges.
//
// Files are in two folders, neither of which is ever left: "out" holds what is given and is
// written by others, "in" what was got, under names that are made of ids alone. The names that
// peers give to files are shown and never used as paths.
package files
