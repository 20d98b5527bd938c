package embed

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/bus/contract"
)

// JetStream is switched off when the disk has less than fullBelow left, and on
// again at minFree, at the earliest offTime after it was switched last: a disk that
// fails otherwise than by being full must not make it flap.
const (
	fullBelow = 8 << 20
	minFree   = 32 << 20
	offTime   = 2 * time.Second
)

// streams are what JetStream holds. No direct get and no roll-up anywhere: the
// first would deliver stored bytes to any subject, the second lets who may write
// one key clear all of them.
var streams = []jetstream.StreamConfig{
	{
		Name: contract.StreamRoomEvents, Description: "what happened in rooms", Subjects: keptSubjects(),
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: 30 * 24 * time.Hour, MaxBytes: 1 << 30, MaxMsgSize: 256 << 10, Duplicates: 2 * time.Minute, DenyDelete: true,
	},
	{
		Name: "KV_" + contract.BucketRooms, Description: "state of rooms", Subjects: []string{"$KV." + contract.BucketRooms + ".>"},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxMsgsPerSubject: 1,
		MaxBytes: 256 << 20, Duplicates: 2 * time.Minute, DenyDelete: true,
	},
	{
		Name: "KV_" + contract.BucketLeases, Description: "leases of actors and bots", Subjects: []string{"$KV." + contract.BucketLeases + ".>"},
		Storage: jetstream.MemoryStorage, Discard: jetstream.DiscardNew, MaxMsgsPerSubject: 1,
		MaxBytes: 64 << 20, MaxMsgSize: 4 << 10, MaxAge: time.Hour, Duplicates: 2 * time.Minute, DenyDelete: true, AllowMsgTTL: true,
	},
}

// keptSubjects are the subjects of the room events that are kept for replay.
func keptSubjects() []string {
	var out []string
	for _, t := range contract.KeptEvents {
		out = append(out, contract.RoomEvents.Subject("*", "*", string(t)))
	}
	return out
}

// ensureStreams makes the streams and brings those that a former version made up
// to date. A stream whose settings cannot be changed so is left and reported.
// With more than one replica leases are on disk, too: in memory they would begin anew, with epochs that were
// before, when all servers have been stopped.
func ensureStreams(ctx context.Context, nc *natsgo.Conn, replicas int) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	for _, cfg := range streams {
		leases := cfg.Storage == jetstream.MemoryStorage
		if cfg.Replicas = replicas; replicas > 1 {
			cfg.Storage = jetstream.FileStorage
		}
		if leases {
			// It is gone with the server. Its sequences begin where no former one
			// has got to, short of 1000 writes a second for all its life: they
			// are epochs of leases, and a revision must not come twice.
			cfg.FirstSeq = uint64(time.Now().UnixMilli())
			if s, err := js.Stream(ctx, cfg.Name); err == nil {
				cfg.FirstSeq = s.CachedInfo().Config.FirstSeq
			} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
				return fmt.Errorf("stream %s: %w", cfg.Name, err)
			}
		}
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	return nil
}

// ensure makes the streams of this server or cluster, as soon as that has a leader.
func (n *nats) ensure(ctx context.Context, nc *natsgo.Conn) error {
	replicas := 1
	if n.cluster != nil {
		replicas = n.cluster.replicas
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ensureTime)
		defer cancel()
	}
	return ensureStreams(ctx, nc, replicas)
}

// freeBytes returns how much an unprivileged process may still write to the disk
// of dir.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("disk of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
