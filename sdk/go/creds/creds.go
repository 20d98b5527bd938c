// Package creds reads whose a bot's credentials file is.
package creds

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/natscreds"
)

// ErrNotOfABot says that the credentials let no bot into a room.
var ErrNotOfABot = errors.New("not of a bot: name account, room and bot")

// Read returns what the permissions in the file's JWT name, or its tags where these are kept elsewhere.
func Read(path string) (account, room, bot string, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", "", fmt.Errorf("credentials: %w; `parley bot create NAME --room ROOM` makes them, and says where they are", err)
	} else if err != nil {
		return "", "", "", fmt.Errorf("credentials: %w", err)
	}
	f, err := natscreds.Parse(text)
	if err != nil {
		return "", "", "", fmt.Errorf("%s was cut short, or is no such file (%w): copy it again, or make another with `parley bot create` on the node", path, err)
	}
	claims := f.User
	for _, s := range append(claims.Pub.Allow, claims.Tags...) {
		if p, ok := contract.RoomGet.Match(s); ok && p[0] != "*" {
			return p[0], p[1], p[2], nil
		}
	}
	return "", "", "", fmt.Errorf("credentials %s: %w", path, ErrNotOfABot)
}
