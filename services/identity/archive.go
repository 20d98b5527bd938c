package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/secret"
	"github.com/parley-jami/parley/services/identity/account"
)

// replyKey is the size of the key with which an answer is sealed.
const replyKey = 32

// maxSealed bounds a sealed request: an archive in base64, and some more.
const maxSealed = contract.MaxSealedArchive*4/3 + 16<<10

// unseal opens a request that only this process can read.
func (s *Service) unseal(q *contract.Sealed, command string) (*contract.Secret, error) {
	if len(q.Cipher) > maxSealed {
		return nil, contract.ErrBadRequest.With("%d bytes to decrypt, at most %d", len(q.Cipher), maxSealed)
	}
	clear, err := s.sealed.Open(command, q.Cipher)
	if err != nil {
		return nil, contract.ErrBadRequest.With("not sealed for %s of this identity process, which may have been started again, or damaged; repeat it", command)
	}
	x := new(contract.Secret)
	if err := json.Unmarshal(clear, x); err != nil {
		return nil, contract.ErrBadRequest.With("what is sealed does not parse")
	}
	for _, pw := range [][]byte{x.Password, x.New} {
		if len(pw) > secret.Max {
			return nil, contract.ErrBadRequest.With("a password has at most %d bytes", secret.Max)
		}
	}
	return x, nil
}

func (s *hosted) archiveExport(_ context.Context, r *bus.Request[contract.Sealed]) (*contract.Sealed, error) {
	x, err := s.unseal(&r.Body, contract.ArchiveExport.Name)
	if err != nil {
		return nil, err
	}
	if len(x.Reply) != replyKey {
		return nil, contract.ErrBadRequest.With("the key for the answer has %d bytes, want %d", len(x.Reply), replyKey)
	}
	if x.From > 0 {
		return s.export.next(x.Reply, x.From)
	}
	b, err := s.acc.Export(x.Password, x.New)
	if err != nil {
		return nil, s.archiveError(err)
	}
	b, err = jami.Seal(x.Reply, b)
	if err != nil {
		return nil, err
	}
	s.env.Log.Info("archive exported", zap.Bool("password", len(x.New) > 0))
	return s.export.first(x.Reply, b), nil
}

func (s *hosted) archivePassword(_ context.Context, r *bus.Request[contract.Sealed]) (*contract.Account, error) {
	x, err := s.unseal(&r.Body, contract.ArchivePassword.Name)
	if err != nil {
		return nil, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.acc.SetPassword(x.Password, x.New); err != nil {
		return nil, s.archiveError(err)
	}
	s.env.Log.Info("password of the archive changed", zap.String("archive", string(s.acc.Guard())))
	return s.shown(), nil
}

// archiveError says it in the words of the contract. Neither a password nor a key is
// in any of these errors.
func (s *Service) archiveError(err error) error {
	if errors.Is(err, account.ErrManaged) {
		return contract.ErrForbidden.With("%v", account.ErrManaged)
	}
	if errors.Is(err, account.ErrPassword) {
		return contract.ErrForbidden.With("the password of the archive is wrong or missing, or the archive is damaged")
	}
	s.env.Log.Error("archive", zap.Error(err))
	if errors.Is(err, jami.ErrArchive) {
		return contract.ErrStateDamaged.With("%v", err)
	}
	return contract.ErrStorage.With("the archive could not be read or written, and is as it was: %v", err)
}

// archiveState tells what the operator may have to do about the archive; empty: nothing.
func (s *hosted) archiveState() string {
	if s.acc.Guard() != account.Locked {
		return ""
	}
	if path := s.env.Config.Identity.PasswordFile; path != "" {
		return fmt.Sprintf("the password in %s (identity.password_file) does not open its archive: what changes the archive asks for the password", path)
	}
	return "its archive has a password, which what changes the archive asks for (or name a file with it as identity.password_file)"
}
