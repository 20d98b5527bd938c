// Package gitlink brings channels of conversations to the process that has the repositories
// (swarm §3.1):
//
//	git://DEVICE/CONVERSATION
//
//	DEVICE        long id of the device that is asked, 64 hex digits
//	CONVERSATION  40 hex digits
//
// What is on them it does not read: each message of the channel is one of the socket, both ways.
package gitlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// Scheme is what stands before the colon of a channel's name.
const Scheme = "git"

// Bounds of channels. Stock keeps one for each conversation that it has fetched.
const (
	maxChannels       = 256
	maxChannelsDevice = 32
)

// answerTime is how long the other process may think about a channel: the connection is not read meanwhile, and
// has to answer a beacon within 3 s.
const answerTime = 2 * time.Second

// Errors of channels.
var (
	ErrName    = errors.New("not the name of a conversation's channel")
	ErrRefused = errors.New("the conversation is not given to this device")
)

// Name is the channel's name.
func Name(device jami.LongID, conversation string) string {
	return Scheme + "://" + device.String() + "/" + conversation
}

// ParseName reads one.
func ParseName(s string) (device jami.LongID, conversation string, err error) {
	rest, ok := strings.CutPrefix(s, Scheme+"://")
	dev, conversation, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || len(conversation) != 40 || strings.Trim(conversation, "0123456789abcdef") != "" {
		return device, "", fmt.Errorf("%w: %.120q", ErrName, s)
	}
	if device, err = jami.ParseLongID(dev); err != nil {
		return device, "", fmt.Errorf("%w: %.120q", ErrName, s)
	}
	return device, conversation, nil
}

// Links are the channels of this process. It implements [channel.Handler], and is safe for
// concurrent use.
type Links struct {
	socket string
	log    *zap.Logger
	open   *channel.Set
}

// New returns links to a socket, by its path. They work until Close.
func New(socket string, log *zap.Logger) *Links {
	return &Links{socket: socket, log: log, open: channel.NewSet(maxChannels, maxChannelsDevice)}
}

// Close ends all and waits.
func (l *Links) Close() { l.open.Close() }

// Accept implements [channel.Handler]: a member's device wants to fetch.
func (l *Links) Accept(account jami.ID, c channel.Channel) error {
	_, conversation, err := ParseName(c.Name())
	if err != nil {
		return err
	}
	conn, err := l.dial(account, c.Peer(), conversation, "")
	if err != nil {
		return err
	}
	var b [16]byte
	err = conn.SetReadDeadline(time.Now().Add(answerTime))
	if err == nil {
		var n int
		if n, err = conn.Read(b[:]); err == nil && string(b[:n]) != "ok" {
			err = ErrRefused
		}
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err == nil {
		err = l.open.Serve(c, func() { pump(c, conn) })
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// Bring brings a channel that was asked for, under its token. It owns the channel then, unless there is an
// error.
func (l *Links) Bring(account jami.ID, c channel.Channel, conversation, token string) error {
	conn, err := l.dial(account, c.Peer(), conversation, token)
	if err != nil {
		return err
	}
	if err := l.open.Serve(c, func() { pump(c, conn) }); err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

func (l *Links) dial(account jami.ID, peer channel.Peer, conversation, token string) (*net.UnixConn, error) {
	hello, err := json.Marshal(&contract.GitHello{Account: account.String(), Conversation: conversation, Peer: peer.Account.String(), Device: peer.DeviceLong, Token: token})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unixpacket", l.socket)
	if err != nil {
		return nil, fmt.Errorf("conversations cannot be reached: %w", err)
	}
	if _, err := conn.Write(hello); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn.(*net.UnixConn), nil
}

// pump moves messages both ways until one side ends, which ends the other.
func pump(c channel.Channel, conn *net.UnixConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.Close() //nolint:errcheck // it ends either way
		b := make([]byte, contract.GitMessage)
		for {
			n, err := conn.Read(b)
			if err == nil && n > 0 {
				_, err = c.Write(b[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		b, err := c.ReadMessage()
		if err == nil && len(b) > 0 {
			_, err = conn.Write(b)
		}
		if err != nil {
			break
		}
	}
	conn.Close() //nolint:errcheck // it ends either way
	<-done
}
