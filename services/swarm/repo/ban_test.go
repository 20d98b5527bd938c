package repo

import (
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/services/swarm/commit"
)

// BanDevice has an administrator ban a device, as stock does: a vote, then what the votes come to.
func BanDevice(s *Swarm, a *Author, device string) error {
	vote := "votes/ban/devices/" + device + "/" + a.URI
	_, err := s.write(a, commit.Message{commit.KeyType: commit.TypeVote, commit.KeyURI: device}, time.Now(), func(files map[string]plumbing.Hash) error {
		return s.file(files, vote, nil)
	})
	if err != nil {
		return err
	}
	_, err = s.write(a, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "ban", commit.KeyURI: device}, time.Now(), func(files map[string]plumbing.Hash) error {
		path := "devices/" + device + ".crt"
		files["banned/"+path] = files[path]
		delete(files, path)
		delete(files, vote)
		return nil
	})
	return err
}
