// Command moderator mutes who shouts: a level over the threshold for two of the last
// three seconds. It tells them in the chat; they can unmute when a moderator lets them.
//
//	parley bot create moderator --room main --allow listen,chat,moderate
//	go run ./examples/moderator -creds moderator.creds -loudest 10
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

// A frame is 20 ms.
const (
	window = 150 // frames looked at: 3 s
	limit  = 100 // of them may be too loud: 2 s
)

func main() {
	creds := flag.String("creds", "moderator.creds", "credentials of the bot")
	url := flag.String("url", "", "the node's bus (default nats://127.0.0.1:4223)")
	loudest := flag.Int("loudest", 10, "level that is too loud, in dB below full scale")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := moderate(ctx, *creds, *url, *loudest); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func moderate(ctx context.Context, creds, url string, loudest int) error {
	room, err := parley.Connect(parley.Options{Creds: creds, URL: url})
	if err != nil {
		return err
	}
	defer room.Close()
	return room.Stay(ctx, "Moderator", func(ctx context.Context, _ *contract.Joined) error { return watch(ctx, room, loudest) })
}

// watch mutes who shouts, until ctx ends or the node is away.
func watch(ctx context.Context, room *parley.Room, loudest int) error {
	// The levels are in the headers; Opus as received is the cheapest that carries them.
	audio, err := room.Listen(ctx, contract.Listen{Speakers: contract.FormatOpus}, 0)
	if err != nil {
		return err
	}
	defer audio.Close()
	log.Printf("joined %s as %q; who is louder than -%d dB for 2 s is muted", room.Name, "Moderator", loudest)
	meters := map[string]*meter{}
	for {
		f, err := audio.Read(ctx)
		if err != nil {
			return err
		}
		m := meters[f.Speaker]
		if m == nil {
			m = &meter{}
			meters[f.Speaker] = m
		}
		if !m.shouts(f.Seq, f.Level <= loudest) {
			continue
		}
		delete(meters, f.Speaker)
		p, err := parley.Call(ctx, room, contract.RoomMute, contract.MuteChange{Participant: f.Speaker, Muted: true})
		if err != nil {
			log.Print(err) // gone in the meantime
			continue
		}
		log.Printf("muted %s", p.Name)
		if _, err := room.Chat(ctx, fmt.Sprintf("%s was muted: too loud. Please check your microphone.", p.Name)); err != nil {
			return err
		}
	}
}

// meter counts the loud ones of somebody's last frames.
type meter struct {
	loud  [window]bool
	last  uint64
	count int
}

// shouts takes frame seq. Frames that did not come were silent.
func (m *meter) shouts(seq uint64, loud bool) bool {
	seq++ // from 1 on: 0 is before the first
	if m.last == 0 || seq > m.last+window {
		*m = meter{last: seq - 1}
	}
	for m.last < seq {
		m.last++
		slot := &m.loud[m.last%window]
		if *slot {
			m.count--
		}
		if *slot = loud && m.last == seq; *slot {
			m.count++
		}
	}
	return m.count > limit
}
