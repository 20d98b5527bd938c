package swarm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// roomMap says which conversation each room has: ACCOUNT/rooms.json. Each
// repository names its room too, so that a lost file is made again.
type roomMap struct {
	path string

	mu  sync.Mutex
	ids map[string]string
}

// loadRooms reads the map and adds the conversations that are on the disk but not
// in it: the process may have been killed between the two.
func loadRooms(dir string, log *zap.Logger) (*roomMap, error) {
	m := &roomMap{path: filepath.Join(dir, "rooms.json"), ids: map[string]string{}}
	text, err := os.ReadFile(m.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("rooms of the conversations: %w", err)
	default:
		if m.ids, err = parseRooms(text); err != nil {
			return nil, contract.ErrStateDamaged.With("%s is damaged (%v); put it back from a backup, or move it away: it is then made again from the repositories beside it", m.path, err)
		}
	}
	base := filepath.Join(dir, "conversations")
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("conversations: %w", err)
	}
	found := false
	for _, e := range entries {
		path := filepath.Join(base, e.Name())
		if strings.HasPrefix(e.Name(), repo.TempPrefix) {
			if err := os.RemoveAll(path); err != nil {
				log.Warn("an unfinished conversation stays", zap.String("path", path), zap.Error(err))
			}
			continue
		}
		if !commit.IsID(e.Name()) {
			continue
		}
		room, err := repo.Room(path)
		if err != nil {
			log.Warn("a conversation does not say whose it is", zap.String("path", path), zap.Error(err))
			continue
		}
		if _, known := m.ids[room]; !known && validRoom(room) {
			m.ids[room], found = e.Name(), true
			log.Info("conversation found again", zap.String("room", room), zap.String("conversation", e.Name()))
		}
	}
	if found {
		if err := m.save(m.ids); err != nil { // the next start finds them again
			log.Warn("rooms.json not written; the repositories themselves name their rooms", zap.Error(err))
		}
	}
	return m, nil
}

func parseRooms(text []byte) (map[string]string, error) {
	ids := map[string]string{}
	if err := json.Unmarshal(text, &ids); err != nil {
		return nil, err
	}
	if ids == nil {
		return nil, errors.New("it says null")
	}
	for room, id := range ids {
		if !validRoom(room) || !commit.IsID(id) {
			return nil, fmt.Errorf("%.80q: %.80q is no room with its conversation", room, id)
		}
	}
	return ids, nil
}

// get returns a room's conversation id, or "".
func (m *roomMap) get(room string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[room]
}

// all returns the rooms that have a conversation, in order.
func (m *roomMap) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.ids))
}

// set adds a room and writes the file. When it cannot be written, the room is
// still found by its repository at the next start.
func (m *roomMap) set(room, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids[room] = id
	return m.save(m.ids)
}

// remove takes a room out of the file, or leaves it in when that fails.
func (m *roomMap) remove(room string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := maps.Clone(m.ids)
	delete(next, room)
	if err := m.save(next); err != nil {
		return err
	}
	m.ids = next
	return nil
}

func (m *roomMap) save(ids map[string]string) error {
	text, err := json.MarshalIndent(ids, "", "  ")
	if err != nil {
		return fmt.Errorf("rooms.json: %w", err)
	}
	return repo.ReplaceFile(m.path, append(text, '\n'))
}

// validRoom reports whether name can be a room: 1 to 64 of a-z, 0-9 and -.
func validRoom(name string) bool {
	if len(name) < 1 || len(name) > 64 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
