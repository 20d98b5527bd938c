// Command recorder writes one Ogg Opus file for each speaker and one of the mix. It
// takes the Opus packets as they are: nothing is decoded here.
//
//	parley bot create recorder --room main --allow listen
//	go run ./examples/recorder -creds recorder.creds -dir recordings
//
// The files are named after the participant and the time at which it began.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3/pkg/media/oggwriter"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

func main() {
	creds := flag.String("creds", "recorder.creds", "credentials of the bot")
	url := flag.String("url", "", "the node's bus (default nats://127.0.0.1:4223)")
	dir := flag.String("dir", ".", "where to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := record(ctx, *creds, *url, *dir); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func record(ctx context.Context, creds, url, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	room, err := parley.Connect(parley.Options{Creds: creds, URL: url})
	if err != nil {
		return err
	}
	defer room.Close()
	return room.Stay(ctx, "Recorder", func(ctx context.Context, _ *contract.Joined) error { return write(ctx, room, dir) })
}

// write writes what is heard, to new files, until ctx ends or the node is away.
func write(ctx context.Context, room *parley.Room, dir string) (err error) {
	audio, err := room.Listen(ctx, contract.Listen{Mix: contract.FormatOpus, Speakers: contract.FormatOpus}, 500)
	if err != nil {
		return err
	}
	defer audio.Close()
	log.Printf("joined %s as %q; recording to %s until Ctrl-C", room.Name, "Recorder", dir)
	files := map[string]*track{}
	defer func() {
		for _, t := range files {
			err = errors.Join(err, t.ogg.Close())
		}
	}()
	for {
		f, err := audio.Read(ctx)
		if err != nil {
			return err
		}
		if f.Dropped > 0 {
			log.Printf("too slow: %d frames are missing", f.Dropped)
		}
		who := f.Speaker
		if f.Mix {
			who = "mix"
		}
		t := files[who]
		if t == nil {
			name := filepath.Join(dir, fmt.Sprintf("%s-%s.ogg", who, time.Now().UTC().Format("20060102-150405")))
			ogg, err := oggwriter.New(name, 48000, 2) // Opus in RTP always says two channels (RFC 7587 §4.1)
			if err != nil {
				return err
			}
			log.Print("recording ", name)
			t = &track{ogg: ogg}
			files[who] = t
		}
		if err := t.write(f); err != nil {
			return err
		}
	}
}

// track is one file. Its clock is the wall clock of the frames, so that all files of
// a room fit together and pauses have their length.
type track struct {
	ogg   *oggwriter.OggWriter
	began time.Time
	n     uint16
}

func (t *track) write(f parley.Frame) error {
	if t.began.IsZero() {
		t.began = f.Wall
	}
	t.n++
	at := uint32(f.Wall.Sub(t.began)/(20*time.Millisecond)) * 960
	return t.ogg.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: t.n, Timestamp: at}, Payload: f.Data})
}
