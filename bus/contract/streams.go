package contract

// What JetStream holds. The bus process makes these at its start and keeps their
// settings; nobody else may create, change or remove a stream (a stream's
// settings can republish and mirror, which would be a way around permissions),
// and nobody may create a consumer (its deliver subject would be another). What
// is stored is read by STREAM.MSG.GET and listed by STREAM.INFO with a subject
// filter: see bus.Feed and bus.KV.
const (
	// StreamRoomEvents keeps the events of rooms
	// (parley.v1.*.room.*.event.>) on disk. Only conference writes and reads it.
	StreamRoomEvents = "ROOM_EVENTS"
	// BucketRooms keeps the state of rooms on disk; only conference uses it.
	BucketRooms = "rooms"
	// BucketLeases keeps leases in memory, each for its own time to live. The
	// processes that host actors use it: conference, media.
	BucketLeases = "leases"
)
