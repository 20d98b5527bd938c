// Command answer answers what contacts write to the node's account, and logs who of them
// comes and goes. It takes no part in the room.
//
//	parley bot create answer --room main --allow messages,presence
//	go run ./examples/answer -creds answer.creds
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

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

func main() {
	creds := flag.String("creds", "answer.creds", "credentials of the bot")
	url := flag.String("url", "", "the node's bus (default nats://127.0.0.1:4223)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *creds, *url); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, creds, url string) error {
	room, err := parley.Connect(parley.Options{Creds: creds, URL: url})
	if err != nil {
		return err
	}
	defer room.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		stop(room.Presence(ctx, func(p contract.Presence) { log.Printf("%s is online: %t", p.ID, p.Online) }))
	}()
	log.Printf("answers what people write to %s", room.Account)
	err = room.Messages(ctx, func(m contract.Message) {
		if !m.Contact || m.Type != "text/plain" {
			return // strangers, and what clients tell each other
		}
		if _, err := room.Write(ctx, m.From, fmt.Sprintf("You wrote %q. Call me to talk!", m.Body)); err != nil {
			log.Printf("%s gets no answer: %v", m.From, err)
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
