// Command echo lets people test their sound: it says back what each one said, once
// they pause.
//
//	parley bot create echo --room test --allow listen,speak
//	go run ./examples/echo --creds echo.creds
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
	if _, err := room.Join(ctx, "Echo test"); err != nil {
		return err
	}
	defer leave(room)
	audio, err := room.Listen(ctx, contract.Listen{Speakers: format}, 0)
	if err != nil {
		return err
	}
	defer audio.Close()
	said := map[string][]byte{} // by speaker
	for {
		f, err := next(ctx, audio)
		switch {
		case errors.Is(err, context.DeadlineExceeded): // nobody speaks
			for who, pcm := range said {
				if err := say(ctx, room, pcm); err != nil {
					return err
				}
				delete(said, who)
			}
		case err != nil:
			return err
		case f.Speaker != room.Me && len(said[f.Speaker]) < most:
			said[f.Speaker] = append(said[f.Speaker], f.Data...)
		}
	}
}

// next returns the next frame, or context.DeadlineExceeded after a pause.
func next(ctx context.Context, audio *parley.Audio) (parley.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	return audio.Read(ctx)
}

// say queues a sentence, a second a message. The room plays it in its own time.
func say(ctx context.Context, room *parley.Room, pcm []byte) error {
	for len(pcm) > 0 {
		n := min(50*frame, len(pcm))
		if _, refused, err := room.Say(ctx, format, pcm[:n]); err != nil {
			return err
		} else if refused > 0 {
			log.Printf("%d frames were refused so far", refused)
		}
		pcm = pcm[n:]
	}
	return nil
}

func leave(room *parley.Room) {
	if err := room.Leave(); err != nil {
		log.Print(err)
	}
}
