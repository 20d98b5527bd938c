package account

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
)

// Store is where the accounts of a node are, and what opens them. It is not changed
// while it is used.
type Store struct {
	Root string
	// Password is that of archives; nil: none is known.
	Password []byte
	// Seal encrypts the keys on the disk: those of devices, and archives that have no
	// password of their own. nil: only the files' mode keeps them.
	Seal []byte
	Now  func() time.Time // nil: time.Now
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Key is a device's private key. It may be one of a token (PKCS #11, TPM): what uses it
// knows no more of it.
type Key interface {
	crypto.Signer
	crypto.Decrypter
}

// passwords are those that may open an archive of the store.
func (s *Store) passwords() (all [][]byte) {
	for _, p := range [][]byte{s.Password, s.Seal} {
		if len(p) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// sealedPassword is the password of an archive on the disk that is to have the given one.
func (s *Store) sealedPassword(password []byte) []byte {
	if len(password) > 0 {
		return password
	}
	return s.Seal
}

// packKey is the content of the file of a device's key.
func (s *Store) packKey(k *rsa.PrivateKey) ([]byte, error) {
	if len(s.Seal) > 0 {
		return jami.MarshalEncryptedKey(k, s.Seal)
	}
	return jami.MarshalKey(k)
}

// errSealed says that a key's file does not open.
var errSealed = errors.New("the key is encrypted, and what the node was given does not open it")

// sealedAdvice is for it.
const sealedAdvice = "give the node what the key was encrypted with (identity.storage_key_file, or PARLEY_IDENTITY_STORAGE_KEY in the environment), " +
	"or put the file back from a backup"

// parseKey reads the file of a device's key.
func (s *Store) parseKey(b []byte) (*rsa.PrivateKey, error) {
	k, err := jami.ParseSigner(b, s.Seal)
	if errors.Is(err, jami.ErrPassword) {
		return nil, errSealed
	}
	if err != nil {
		return nil, err
	}
	r, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: a device has an RSA key, this is %T", jami.ErrKey, k)
	}
	return r, nil
}

// seal encrypts what an account that was made before there was a Seal has in the clear.
func (a *Account) seal() error {
	if len(a.store.Seal) == 0 {
		return nil
	}
	path := filepath.Join(a.Dir, fileKey)
	b, err := readFile(path)
	if err != nil {
		return err
	}
	if k, ok := a.key.(*rsa.PrivateKey); ok && !bytes.Contains(b, []byte("ENCRYPTED")) {
		if b, err = a.store.packKey(k); err != nil {
			return err
		}
		if err := atomicfile.Write(path, b, fileMode); err != nil {
			return err
		}
	}
	if a.Guard() != Plain {
		return nil
	}
	return a.SetPassword(nil, a.store.Seal)
}

// Close forgets the key: what of it this process can reach is overwritten. The account is
// not used after.
func (a *Account) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.key.(*rsa.PrivateKey); ok {
		Wipe(k)
	}
	a.key = nil
}

// Wipe overwrites a private key's numbers. The standard library holds them a second time,
// prepared for use and out of reach, until the memory is used for something else.
func Wipe(k *rsa.PrivateKey) {
	for _, x := range append([]*big.Int{k.D, k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}, k.Primes...) {
		if x != nil {
			clear(x.Bits())
		}
	}
}

// sealAside encrypts what accounts that were moved aside have in the clear.
func (s *Store) sealAside() error {
	if len(s.Seal) == 0 {
		return nil
	}
	for _, f := range []struct {
		pattern string
		sealed  func([]byte) ([]byte, error) // nil: it is not in the clear
	}{
		{asidePrefix + "*/" + fileKey, s.resealKey},
		{requestPrefix + "*/" + fileKey, s.resealKey},
		{requestPrefix + "*/" + fileAccountKey, s.resealKey},
		{asidePrefix + "*/" + fileArchive, s.resealArchive},
	} {
		paths, err := filepath.Glob(filepath.Join(s.Root, f.pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			b, err := readFile(path)
			if err != nil {
				return err
			}
			if b, err = f.sealed(b); err != nil || b == nil {
				continue // damaged, or encrypted: it is nobody's to judge any more
			}
			if err := atomicfile.Write(path, b, fileMode); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) resealKey(b []byte) ([]byte, error) {
	k, err := jami.ParseKey(b)
	if err != nil {
		return nil, err
	}
	return s.packKey(k)
}

func (s *Store) resealArchive(b []byte) ([]byte, error) {
	if jami.Encrypted(b) {
		return nil, nil
	}
	a, err := jami.ParseArchive(b, nil)
	if err != nil {
		return nil, err
	}
	return a.Pack(s.Seal)
}

// elsewhere is [ErrNone], or says that there is an account in a place where none is looked
// for: a backup that was put back one directory too deep. A new account would hide that.
func (s *Store) elsewhere() error {
	deep, err := filepath.Glob(filepath.Join(s.Root, "*", "*", fileKey))
	if err != nil || len(deep) == 0 {
		return errors.Join(ErrNone, err)
	}
	dir := filepath.Dir(filepath.Dir(deep[0]))
	return &DamagedError{Path: dir, Err: errors.New("there is an account in it, and none where one belongs"),
		Advice: "a backup is put back by moving what is in this directory to " + s.Root + "; or move it away to start with a new account"}
}
