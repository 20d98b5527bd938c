package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/parley-jami/parley/bus/contract"
)

// pinFlags are the ways to give a PIN. None takes it on the command line, where
// every user of the machine could read it.
type pinFlags struct {
	file                    string
	stdin, prompt, generate bool
}

func newRoomCreate(a *app) *cobra.Command {
	var q contract.RoomCreate
	var pin pinFlags
	var role, account string
	cmd := &cobra.Command{
		Use: "create ROOM", Short: "Make a room",
		Long: `Make a room. A PIN is 4 to 12 digits and never stands on the command line, where
other users of the machine could read it; with --generate-pin it is printed, once. The
moderator's link makes a moderator of who opens it and stands for the PIN.`,
		Args: takes("ROOM"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Name, q.DefaultRole = args[0], contract.Role(role)
			if role != "" && q.DefaultRole != contract.RoleSpeaker && q.DefaultRole != contract.RoleListener {
				return usagef("--role %q: speaker or listener", role)
			}
			if q.Max < 0 {
				return usagef("--max %d: a number of participants, 0 for no limit", q.Max)
			}
			if err := word("room", q.Name); err != nil {
				return err
			}
			var err error
			if q.PIN, err = pin.read(a); err != nil {
				return err
			}
			if q.SIPAuth && q.PIN == "" {
				return usagef("--sip-auth proves the PIN, so the room needs one")
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				if account != "" {
					st, err := call(ctx, s, contract.IdentityGet, &contract.None{})
					if err != nil {
						return err
					}
					acc, err := pick(st, account)
					if err != nil {
						return err
					}
					q.Account = acc.ID
				}
				r, err := call(ctx, s, contract.RoomCreateCmd, &q)
				if err != nil {
					return err
				}
				return a.printCreated(r, a.roomLinks(ctx, s, r), q.PIN, pin.generate)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Title, "title", "", "name for people")
	f.StringVar(&role, "role", "", "role of who joins: speaker (default) or listener")
	f.IntVar(&q.Max, "max", 0, "most participants at once; 0: no limit")
	f.BoolVar(&q.SIPAuth, "sip-auth", false, "SIP callers prove the PIN by digest authentication (user: the room)")
	f.StringVar(&account, "account", "", "id or name of the node's account whose room it is (default: the main one)")
	f.StringVar(&pin.file, "pin-file", "", "read the PIN from this file")
	f.BoolVar(&pin.stdin, "pin-stdin", false, "read the PIN from standard input")
	f.BoolVar(&pin.prompt, "pin-prompt", false, "ask for the PIN on the terminal")
	f.BoolVar(&pin.generate, "generate-pin", false, "make a PIN of 8 digits and print it")
	return cmd
}

// printCreated shows the room and a PIN that nobody but the node knows yet.
func (a *app) printCreated(r *contract.Room, links contract.RoomLinks, pin string, generated bool) error {
	answer := struct {
		*contract.Room
		PIN   string             `json:"pin,omitempty"`
		Links contract.RoomLinks `json:"links"`
	}{Room: r, Links: links}
	if generated {
		answer.PIN = pin
	}
	return a.print(answer, func(w io.Writer) {
		fmt.Fprintf(w, "room %s is open\n", r.Name)
		if generated {
			fmt.Fprintf(w, "PIN\t%s\n", pin)
		}
		if r.HasPIN {
			fmt.Fprintf(w, "phones\tuser %s, password the PIN\n", r.Name)
		}
		showLinks(w, links)
	})
}

// read returns the PIN, empty when none was asked for.
func (p *pinFlags) read(a *app) (string, error) {
	var pin string
	given := 0
	for _, is := range []bool{p.file != "", p.stdin, p.prompt, p.generate} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return "", usagef("give one of --pin-file, --pin-stdin, --pin-prompt and --generate-pin")
	case p.generate:
		n, err := rand.Int(rand.Reader, big.NewInt(1e8))
		if err != nil {
			return "", fmt.Errorf("making a PIN: %w", err)
		}
		return fmt.Sprintf("%08d", n), nil
	case p.file != "":
		f, err := os.Open(p.file)
		if err != nil {
			return "", fmt.Errorf("PIN: %w", err)
		}
		defer f.Close()
		if pin, err = firstLine(f); err != nil {
			return "", fmt.Errorf("PIN: %w", err)
		}
	case p.stdin:
		var err error
		if pin, err = firstLine(a.in); err != nil {
			return "", fmt.Errorf("PIN: %w", err)
		}
	case p.prompt:
		f, ok := a.in.(*os.File)
		if !ok || !term.IsTerminal(int(f.Fd())) {
			return "", usagef("--pin-prompt needs a terminal; use --pin-stdin or --pin-file")
		}
		fmt.Fprint(a.err, "PIN (4 to 12 digits): ")
		text, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		if err != nil {
			return "", fmt.Errorf("PIN: %w", err)
		}
		pin = string(text)
	default:
		return "", nil
	}
	if len(pin) < 4 || len(pin) > 12 || strings.Trim(pin, "0123456789") != "" {
		return "", usagef("a PIN is 4 to 12 digits")
	}
	return pin, nil
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 64)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(line), nil
}
