// again is how one takes a new seat after the one before was lost: as one was there.
// seat is oneself as last known; want is a mute that the node has not heard of yet, or
// null. The node counts a new seat's mute as one's own: moderated says that a moderator
// had muted, which is to be told. Null: there was no seat before.
export function again(seat, want) {
  if (!seat) return null;
  return { muted: want ?? Boolean(seat.muted), moderated: Boolean(seat.muted_by) };
}
