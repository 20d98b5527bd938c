package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// dhtPut is what `dht put --json` prints.
type dhtPut struct {
	Key       string   `json:"key"`
	IDs       []string `json:"ids"` // one for each device of who it is encrypted to, else one
	Peers     int      `json:"peers"`
	Permanent bool     `json:"permanent"`
	TTLMs     int64    `json:"ttl_ms"`
	Signed    bool     `json:"signed"`
	For       []string `json:"for,omitempty"` // devices that can read it, by their long ids
	Missing   int      `json:"missing,omitempty"`
}

type putFlags struct {
	file, to        string
	permanent, sign bool
	id              uint64
	typ             uint16
	seq             uint16
	userType        string
}

func newDHTPut(a *app) *cobra.Command {
	var f putFlags
	cmd := &cobra.Command{
		Use: "put KEY [TEXT | --file FILE]", Short: "Store a value under a key",
		Long: `Store a value under a key: TEXT, or with --file what a file has, or with --file - what
comes in. A value lives as long as its type says (type 0: ten minutes), with --permanent
until it is cancelled; the node puts it again in time, also after a new start.

` + dhtKeyHelp + `

In OpenDHT's network a value of this command is signed with the node's key. --sign has the
account's device sign it instead, so that others see whose it is; --encrypt-to makes it
readable for the devices of one account alone, each of which gets a copy under KEY.

Two types are for one content: in OpenDHT's network 1 takes a message (MessagePack of an array
that begins with the name of a service), and 8 a certificate under the id of its own key.

It prints the id of the value, with which "parley dht cancel" ends it and with which a
later put replaces it (--id).`,
		Example: `  parley dht put greeting "good morning"
  parley dht put greeting --file photo.jpg --permanent
  date | parley dht put now --file - --id 7
  parley dht put notes "for you" --encrypt-to 5f6a…`,
		Args: func(cmd *cobra.Command, args []string) error {
			want := 2
			if f.file != "" {
				want = 1
			}
			if len(args) != want {
				return usagef("%s takes KEY and either TEXT or --file FILE", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var data []byte
			if f.file != "" {
				var err error
				if data, err = readValue(a.in, f.file); err != nil {
					return err
				}
			} else {
				data = []byte(args[1])
			}
			if f.permanent && f.to != "" {
				return usagef("what is encrypted to somebody is not put for good: leave out --permanent")
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				done, err := putValues(ctx, s, args[0], data, &f)
				if err != nil {
					return err
				}
				return a.print(done, done.show)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.file, "file", "", `file with the value; "-" is standard input`)
	fl.BoolVar(&f.permanent, "permanent", false, "until it is cancelled")
	fl.Uint64Var(&f.id, "id", 0, "id of the value; one with the same id is replaced (default: chosen)")
	fl.Uint16Var(&f.typ, "type", 0, "type of the value, which says how long it lives: 0 ten minutes, 5 one minute, 8 (a certificate, nothing else) a week")
	fl.BoolVar(&f.sign, "sign", false, "sign it with the account's device")
	fl.Uint16Var(&f.seq, "seq", 0, "with --sign: sequence; one that replaces another has to have a higher one")
	fl.StringVar(&f.userType, "user-type", "", "with --sign or --encrypt-to: what applications call the type")
	fl.StringVar(&f.to, "encrypt-to", "", "sign and encrypt it to the devices of this Jami Id")
	accountFlag(cmd, a)
	return cmd
}

// readValue reads no more than a value can have.
func readValue(in io.Reader, name string) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("the value: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, jami.MaxValue+1))
	if err != nil {
		return nil, fmt.Errorf("the value: %w", err)
	}
	if len(b) > jami.MaxValue {
		return nil, usagef("the value has more than %d bytes, which is the most of a value in the DHT", jami.MaxValue)
	}
	return b, nil
}

func putValues(ctx context.Context, s *session, key string, data []byte, f *putFlags) (*dhtPut, error) {
	ctx, cancel := context.WithTimeout(ctx, dhtTime)
	defer cancel()
	done := &dhtPut{Permanent: f.permanent, Signed: f.sign || f.to != ""}
	values := []contract.DHTPacked{{Packed: data}}
	if done.Signed {
		sealed, err := call(ctx, s, contract.DHTSealCmd, &contract.DHTSeal{Type: f.typ, Data: data, UserType: f.userType, ID: f.id, Seq: f.seq, To: jamiID(f.to)})
		if err != nil {
			return nil, err
		}
		values, done.Missing = sealed.Values, sealed.Missing
	} else if f.seq != 0 || f.userType != "" {
		return nil, usagef("--seq and --user-type are of values that are signed: give --sign too")
	}
	for i, v := range values {
		q := contract.DHTValue{Key: key, ID: f.id, Type: f.typ, Data: v.Packed}
		if done.Signed {
			p, err := jami.ParseValue(v.Packed)
			if err != nil {
				return nil, err
			}
			q.ID = p.ID
		}
		key := fmt.Sprint(s.key, ".", i)
		st, err := call(ctx, &session{Conn: s.Conn, acc: s.acc, key: key}, contract.DHTPutCmd, &contract.DHTPut{Value: q, Permanent: f.permanent})
		if err != nil {
			return nil, err
		}
		done.Key, done.TTLMs, done.Peers = st.Key, st.TTLMs, max(done.Peers, st.Peers)
		done.IDs = append(done.IDs, strconv.FormatUint(st.ID, 10))
		if v.Device != "" {
			done.For = append(done.For, v.Device)
		}
	}
	return done, nil
}

func (d *dhtPut) show(w io.Writer) {
	fmt.Fprintf(w, "key\t%s\n", d.Key)
	for i, id := range d.IDs {
		if i < len(d.For) {
			fmt.Fprintf(w, "value\t%s for device %s\n", id, d.For[i])
		} else {
			fmt.Fprintf(w, "value\t%s\n", id)
		}
	}
	if d.Missing > 0 {
		fmt.Fprintf(w, "missing\t%s, whose certificates are not found now\n", plural(d.Missing, "device"))
	}
	if d.Peers > 0 {
		fmt.Fprintf(w, "stored at\t%s\n", plural(d.Peers, "node"))
	} else {
		fmt.Fprintf(w, "stored at\tthis node alone; it hands it on when it meets others\n")
	}
	if d.Permanent {
		fmt.Fprintf(w, "lives\tuntil it is cancelled\n")
	} else {
		fmt.Fprintf(w, "lives\t%s\n", (time.Duration(d.TTLMs) * time.Millisecond).Round(time.Second))
	}
}
