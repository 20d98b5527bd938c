package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/turn"
)

// refreshFor is how long after the end of a credential the allocation that it opened
// may still be refreshed: who talks goes on talking, and no browser renews the
// credentials of a connection that works.
const refreshFor = 24 * time.Hour

// Users knows credentials. It is safe for concurrent use.
type Users struct {
	secret []byte
	file   string
	log    *zap.Logger
	now    func() time.Time

	mu      sync.Mutex
	lasting map[string]string
	looked  time.Time
	changed time.Time // of the file
}

// NewUsers returns users of short-lived credentials, and of lasting ones in file unless
// it is "". The file is read here, and again when it changes.
func NewUsers(secret []byte, file string, log *zap.Logger) (*Users, error) {
	u := &Users{secret: secret, file: file, log: log, now: time.Now}
	if file == "" {
		return u, nil
	}
	u.looked = u.now()
	return u, u.read()
}

// Password returns the password of a user name and whose allocations it opens. stands
// says that the request is about an allocation that is there: it is taken for
// [refreshFor] longer.
func (u *Users) Password(username string, stands bool) (who, password string, ok bool) {
	if p, ok := u.lastingOf(username); ok {
		return username, p, true
	}
	who, ago, err := turn.Open(username, u.now())
	if errors.Is(err, turn.ErrExpired) && stands && ago < refreshFor {
		err = nil
	}
	if err != nil {
		return "", "", false
	}
	return who, turn.Password(u.secret, username), true
}

// lookEvery is how often the file is looked at, at most.
const lookEvery = 2 * time.Second

func (u *Users) lastingOf(name string) (string, bool) {
	if u.file == "" {
		return "", false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := u.now(); now.Sub(u.looked) > lookEvery {
		u.looked = now
		if st, err := os.Stat(u.file); err == nil && !st.ModTime().Equal(u.changed) {
			if err := u.readLocked(); err != nil {
				u.changed = st.ModTime() // told once
				u.log.Error("the users stay as they were", zap.String("file", u.file), zap.Error(err))
			}
		}
	}
	p, ok := u.lasting[name]
	return p, ok
}

func (u *Users) read() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.readLocked()
}

func (u *Users) readLocked() error {
	if err := turn.Private(u.file); err != nil {
		return err
	}
	f, err := os.Open(u.file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err != nil {
		return err
	}
	users, err := parseUsers(text)
	if err != nil {
		return fmt.Errorf("%s: %w", u.file, err)
	}
	u.lasting, u.changed = users, st.ModTime()
	return nil
}

const maxUsersFile = 1 << 20

// parseUsers reads lines USER:PASSWORD; # begins a comment line. A user name has no
// colon, so that it can't be taken for a short-lived one.
func parseUsers(text []byte) (map[string]string, error) {
	if len(text) > maxUsersFile {
		return nil, fmt.Errorf("larger than %d bytes", maxUsersFile)
	}
	users := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		name, password, ok := strings.Cut(line, ":")
		switch {
		case !ok || name == "" || password == "":
			return nil, fmt.Errorf("line %d is not USER:PASSWORD", n)
		case len(name) > 128 || len(password) > 256:
			return nil, fmt.Errorf("line %d is too long: 128 bytes for the user, 256 for the password", n)
		}
		if _, twice := users[name]; twice {
			return nil, fmt.Errorf("line %d names a user for the second time", n)
		}
		users[name] = password
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return users, nil
}
