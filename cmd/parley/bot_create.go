package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/natscreds"
)

// botCreated is what `bot create --json` prints.
type botCreated struct {
	contract.Bot
	Creds       string   `json:"creds"` // path of the credentials file
	URL         string   `json:"url"`
	TLS         bool     `json:"tls"` // Creds also holds what verifies the bus
	InboxPrefix string   `json:"inbox_prefix"`
	Publish     []string `json:"publish"`
	Subscribe   []string `json:"subscribe"`
}

func newBotCreate(a *app) *cobra.Command {
	var room, out string
	var allow []string
	cmd := &cobra.Command{
		Use: "create NAME --room ROOM", Short: "Make credentials for a bot in one room",
		Long: `Make credentials for a bot in one room. The bot's private key is made here, stands
in the credentials file alone and is never sent anywhere.`,
		Args: takes("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := contract.BotCreate{Name: args[0], Room: room}
			if room == "" {
				return usagef("say which room the bot is for: --room ROOM")
			}
			if err := word("bot", q.Name); err != nil {
				return err
			}
			if err := word("room", room); err != nil {
				return err
			}
			for _, r := range allow {
				right := contract.Right(strings.TrimSpace(r))
				if !slices.Contains(contract.Rights, right) {
					return usagef("--allow %q: any of %s", r, joinRights(contract.Rights))
				}
				if !slices.Contains(q.Rights, right) {
					q.Rights = append(q.Rights, right)
				}
			}
			if out == "" {
				out = q.Name + ".creds"
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				made, err := a.createBot(ctx, s, &q, out)
				if err != nil {
					return err
				}
				if out == "-" { // taken: what is told goes beside it
					beside := *a
					beside.out = a.err
					a = &beside
				}
				return a.print(made, func(w io.Writer) { showBotCreated(w, made) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&room, "room", "", "room that the bot may enter")
	f.StringSliceVar(&allow, "allow", []string{string(contract.RightListen)}, "what it may do there: any of "+joinRights(contract.Rights))
	f.StringVar(&out, "out", "", "credentials file to write, - for standard output (default ./NAME.creds)")
	completeFlag(cmd, "room", completeRoomFlag(a))
	completeFlag(cmd, "allow", completeRights)
	return cmd
}

// createBot opens the file first, and takes the bot back when its credentials could
// not be kept.
func (a *app) createBot(ctx context.Context, s *session, q *contract.BotCreate, out string) (made *botCreated, err error) {
	if _, err := getRoom(ctx, s, q.Room); errors.Is(err, contract.ErrNotFound) {
		return nil, contract.ErrNotFound.With("there is no room %s; make it first: parley room create %s", q.Room, q.Room)
	} else if err != nil {
		return nil, err
	}
	// So that the bot which may be taken back is not an older one.
	list, err := call(ctx, s, contract.BotListCmd, &contract.None{})
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(list.Bots, func(b contract.Bot) bool { return b.Name == q.Name && b.Revoked == nil }) {
		return nil, contract.ErrExists.With("a bot of that name exists; revoke it first")
	}
	o, err := a.openCreds(out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	defer user.Wipe()
	if q.UserKey, err = user.PublicKey(); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	got, err := call(ctx, s, contract.BotCreateCmd, q)
	if err == nil {
		var text []byte
		if text, err = natscreds.Format(got.JWT, seed, got.Access); err == nil {
			err = o.keep(text)
		}
		if err != nil {
			err = fmt.Errorf("credentials: %w", err)
		}
	} else if ctx.Err() == nil && !errors.Is(err, contract.ErrTimeout) && !errors.Is(err, contract.ErrUnavailable) {
		return nil, err // refused
	}
	if err != nil {
		_, rerr := call(context.WithoutCancel(ctx), &session{Conn: s.Conn, key: nuid.Next()}, contract.BotRevoke, &contract.BotName{Name: q.Name})
		if rerr != nil && !errors.Is(rerr, contract.ErrNotFound) {
			err = fmt.Errorf("%w; the bot may have been made: `parley bot list` shows it, `parley bot revoke %s` takes it back", err, q.Name)
		}
		return nil, err
	}
	return &botCreated{Bot: got.Bot, Creds: o.path, URL: got.URL, TLS: got.Access.TLS, InboxPrefix: got.InboxPrefix, Publish: got.Publish, Subscribe: got.Subscribe}, nil
}

// defaultBus is where the SDKs look for the bus when no URL is given.
const defaultBus = "nats://127.0.0.1:4223"

func showBotCreated(w io.Writer, b *botCreated) {
	fmt.Fprintf(w, "bot\t%s\nroom\t%s\nallowed\t%s\ncredentials\t%s\nURL\t%s\n", b.Name, b.Room, dash(joinRights(b.Rights)), b.Creds, b.URL)
	prefix := "" // of the room's subjects
	for _, s := range b.Publish {
		if head, _, ok := strings.Cut(s, ".room."+b.Room+"."); ok {
			prefix = head + ".room." + b.Room + "."
			break
		}
	}
	fmt.Fprintf(w, "subjects\t… is %s\npublishes\t%s\nsubscribes\t%s\n", prefix, gather(b.Publish, prefix), gather(b.Subscribe, prefix))
	file := b.Creds
	if file == "-" {
		file = b.Name + ".creds" // where it was put is not known here
	}
	file = quoted(file)
	fmt.Fprintln(w)
	if next := nextStep(b.Rights, file, b.URL); next != "" {
		fmt.Fprintf(w, "Next, in the folder of Parley's sources: %s\n", next)
	}
	verify := ""
	if b.TLS {
		verify = " --tlsca " + file // the certificates in it
	}
	fmt.Fprintf(w, "Any NATS client connects: nats --server %s --creds %s%s --inbox-prefix %s\n", b.URL, file, verify, dash(b.InboxPrefix))
}

// gather lists subjects with … for their prefix; those that differ in the last token
// alone are one word, in the shell's notation.
func gather(subjects []string, prefix string) string {
	var parents []string
	last := map[string][]string{}
	for _, s := range subjects {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			s = "…" + rest
		}
		i := strings.LastIndexByte(s, '.') + 1
		if last[s[:i]] == nil {
			parents = append(parents, s[:i])
		}
		last[s[:i]] = append(last[s[:i]], s[i:])
	}
	for i, p := range parents {
		if parents[i] = p + last[p][0]; len(last[p]) > 1 {
			parents[i] = p + "{" + strings.Join(last[p], ",") + "}"
		}
	}
	return strings.Join(parents, "  ")
}

// nextStep is the command of the example that these rights are for, if there is one.
func nextStep(rights []contract.Right, file, url string) string {
	may := func(r contract.Right) bool { return slices.Contains(rights, r) }
	example, more := "recorder", ""
	switch listen := may(contract.RightListen); {
	case listen && may(contract.RightChat) && may(contract.RightModerate):
		example = "moderator"
	case listen && may(contract.RightSpeak):
		example = "echo"
	case may(contract.RightSpeak):
		example, more = "announcer", " -wav FILE.wav"
	case may(contract.RightChat) && !listen:
		if url == defaultBus {
			url = ""
		}
		return strings.TrimRight("(cd examples/js && npm install) && node examples/js/helper.js "+file+" "+url, " ")
	case may(contract.RightMessages) && !listen:
		example = "answer"
	case !listen:
		return ""
	}
	if url != defaultBus {
		more = " -url " + url + more
	}
	return "go run ./examples/" + example + " -creds " + file + more
}

// quoted is s as a shell takes it.
func quoted(s string) string {
	if strings.ContainsAny(s, " \t\n'\"\\$`&;|<>()*?[]#~!{}") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// completeRights completes the last of rights separated by commas.
func completeRights(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	before := begun[:strings.LastIndexByte(begun, ',')+1]
	var words []string
	for _, r := range contract.Rights {
		if !slices.Contains(strings.Split(before, ","), string(r)) {
			words = append(words, before+string(r))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeRoomFlag completes a flag by the names of rooms.
func completeRoomFlag(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return completeRooms(a)(cmd, nil, begun)
	}
}

// completeFlag is for flags that cmd has.
func completeFlag(cmd *cobra.Command, flag string, by cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, by); err != nil {
		panic(err) // the flag is not there: a mistake in this program
	}
}

func joinRights(rs []contract.Right) string {
	words := make([]string, len(rs))
	for i, r := range rs {
		words[i] = string(r)
	}
	return strings.Join(words, ",")
}
