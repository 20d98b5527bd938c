// Command echo lets people test their sound: it says back what each one said, once
// they pause.
//
//	parley bot create echo --room test --allow listen,speak
//	go run ./examples/echo -creds echo.creds
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

const (
	format = contract.FormatPCM24
	frame  = 24000 / 50 * 2         // bytes of 20 ms
	pause  = 600 * time.Millisecond // of silence end a sentence
	most   = 400 * frame            // 8 s of one sentence are kept
	lag    = 2 * time.Second        // what is still to be said then is dropped for something newer
)

func main() {
	creds := flag.String("creds", "echo.creds", "credentials of the bot")
	url := flag.String("url", "", "the node's bus (default nats://127.0.0.1:4223)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := echo(ctx, *creds, *url); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func echo(ctx context.Context, creds, url string) error {
	room, err := parley.Connect(parley.Options{Creds: creds, URL: url})
	if err != nil {
		return err
	}
	defer room.Close()
	return room.Stay(ctx, "Echo test", func(ctx context.Context, _ *contract.Joined) error { return sayBack(ctx, room) })
}

// sayBack says back what is heard, until ctx ends or the node is away.
func sayBack(ctx context.Context, room *parley.Room) error {
	audio, err := room.Listen(ctx, contract.Listen{Speakers: format}, 0)
	if err != nil {
		return err
	}
	defer audio.Close()
	log.Printf("joined %s as %q; speak to hear yourself", room.Name, "Echo test")
	e := &echoer{room: room}
	said, heard := map[string][]byte{}, map[string]time.Time{} // by speaker
	for {
		next, cancel := context.WithTimeout(ctx, pause)
		f, err := audio.Read(next)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded): // nobody speaks
		case err != nil:
			return err
		case f.Speaker != room.Me:
			if heard[f.Speaker] = time.Now(); len(said[f.Speaker]) < most {
				said[f.Speaker] = append(said[f.Speaker], f.Data...)
			}
		}
		for who, pcm := range said {
			if time.Since(heard[who]) < pause {
				continue
			}
			if err := e.say(ctx, pcm); err != nil {
				return err
			}
			delete(said, who)
			delete(heard, who)
		}
	}
}

type echoer struct {
	room    *parley.Room
	until   time.Time // when all that was said has been heard
	refused int       // frames so far
}

// say queues a sentence, a second a message. The room plays it in its own time.
func (e *echoer) say(ctx context.Context, pcm []byte) error {
	if time.Until(e.until) > lag {
		if err := e.room.Clear(ctx); err != nil {
			return err
		}
	}
	for len(pcm) > 0 {
		n := min(50*frame, len(pcm))
		queued, refused, err := e.room.Say(ctx, format, pcm[:n])
		if err != nil {
			return err
		}
		if refused > e.refused {
			log.Printf("%d frames were refused: is the bot muted?", refused-e.refused)
		}
		pcm, e.refused, e.until = pcm[n:], refused, time.Now().Add(queued)
	}
	return nil
}
