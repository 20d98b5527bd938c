// Command announcer plays a WAV when somebody joins, and falls silent at once when
// somebody speaks. Of several copies exactly one plays: start two for safety.
//
//	parley bot create announcer --room main --allow speak
//	go run ./examples/announcer -creds announcer.creds -wav welcome.wav
//
// The WAV is 16-bit PCM at 16, 24 or 48 kHz.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
	"github.com/parley-jami/parley/sdk/go/wav"
)

func main() {
	creds := flag.String("creds", "announcer.creds", "credentials of the bot")
	url := flag.String("url", "", "the node's bus (default nats://127.0.0.1:4223)")
	file := flag.String("wav", "welcome.wav", "what to play")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *creds, *url, *file); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, creds, url, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	rate, pcm, err := wav.Parse(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	room, err := parley.Connect(parley.Options{Creds: creds, URL: url})
	if err != nil {
		return err
	}
	defer room.Close()
	log.Printf("connected to %s; joins as soon as no other copy plays there", room.Name)
	a := &announcer{room: room, file: file, format: fmt.Sprint("s16le-", rate), sound: wav.Bytes(pcm), chunk: rate}
	return room.Lead(ctx, 6*time.Second, func(ctx context.Context) error {
		return room.Stay(ctx, "Announcer", a.serve) // which leaves while the lease is held: the next copy joins anew
	})
}

type announcer struct {
	room   *parley.Room
	file   string
	format string
	sound  []byte // s16le
	chunk  int    // bytes of half a second: a message has at most 64 KiB
	silent context.CancelFunc
}

// serve runs in the one copy that holds the lease.
func (a *announcer) serve(ctx context.Context, joined *contract.Joined) error {
	log.Printf("joined %s as %q; plays %s to who joins", a.room.Name, "Announcer", a.file)
	a.silent = func() {}
	return a.room.Events(ctx, joined.Seq+1, func(e contract.RoomEvent) {
		switch p := e.Participant; {
		case p == nil || p.ID == a.room.Me:
		case e.Type == contract.EventJoined:
			a.silent() // begin anew
			play, stop := context.WithCancel(ctx)
			a.silent = stop
			go a.play(play)
		case e.Type == contract.EventVoice && p.Speaking:
			a.silent()
			if err := a.room.Clear(ctx); err != nil {
				log.Print(err)
			}
		}
	})
}

// play says the sound half a second at a time, little more than a second ahead.
func (a *announcer) play(ctx context.Context) {
	for rest := a.sound; len(rest) > 0; {
		n := min(a.chunk, len(rest))
		queued, _, err := a.room.Say(ctx, a.format, rest[:n])
		if err != nil {
			if ctx.Err() == nil {
				log.Print(err)
			}
			return
		}
		rest = rest[n:]
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(0, queued-time.Second)):
		}
	}
}
