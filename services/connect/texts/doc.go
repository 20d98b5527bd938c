// Package texts is the channel on which daemons from November 2024 on write texts outside of
// calls (connect-and-calls §5.1). Its name is "msg:" and the long id of the device that is
// asked. On it is a stream of msgpack maps, one for each text, from the opener alone; none is
// answered.
//
//	id   uint64   the sender's number of the text
//	t    str      MIME type
//	c    str      the text
//	req  nil      or what goes with an invitation to a conversation
//
// A daemon of version 13.7 declines the channel.
package texts
