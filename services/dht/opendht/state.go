package opendht

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
)

// keyBits is the size of the node's signing key: what stock nodes ask for at least, and
// a millisecond to sign.
const keyBits = 2048

func newKey(path string) (*rsa.PrivateKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	b, err := jami.MarshalKey(k)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	if err := atomicfile.Write(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	return k, nil
}

// Nodes are saved after the first of these times, doubling to the second, and so many of
// them: a process that is killed soon leaves some, too.
const (
	saveFirst = 500 * time.Millisecond
	saveEvery = 10 * time.Minute
	stateMost = 64
	maxState  = 64 << 10
)

type stateFile struct {
	Version int      `json:"version"`
	Nodes   []string `json:"nodes"` // "<id, 40 hex>@<address>:<port>"
}

// parseState reads the file of saved nodes.
func parseState(b []byte) ([]core.Node, error) {
	if len(b) > maxState {
		return nil, fmt.Errorf("%d bytes, at most %d", len(b), maxState)
	}
	var f stateFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 || len(f.Nodes) > stateMost {
		return nil, fmt.Errorf("version %d with %d nodes", f.Version, len(f.Nodes))
	}
	var out []core.Node
	for _, s := range f.Nodes {
		id, addr, _ := strings.Cut(s, "@")
		x, err := jami.ParseID(id)
		if err != nil {
			return nil, err
		}
		a, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		out = append(out, core.Node{ID: x, Addr: a})
	}
	return out, nil
}

// loadState returns no node when there is no file.
func loadState(path string) ([]core.Node, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	nodes, err := parseState(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nodes, nil
}

// saveState replaces the file, unless there is nothing to save.
func saveState(path string, nodes []core.Node) error {
	if len(nodes) == 0 {
		return nil
	}
	f := stateFile{Version: 1}
	for _, n := range nodes {
		f.Nodes = append(f.Nodes, n.ID.String()+"@"+n.Addr.String())
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o600)
}

// save keeps the file until the node ends; Close writes it a last time. While no node is
// known it looks every second, and then ever less often.
func (n *Node) save() {
	wait := saveFirst
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		n.mu.Lock()
		nodes := n.core.Good(stateMost)
		n.mu.Unlock()
		if len(nodes) > 0 {
			wait = min(2*wait, saveEvery)
		}
		t.Reset(wait)
		if err := saveState(n.o.State, nodes); err != nil {
			n.log.Warn("nodes to start from the next time not saved", zap.Error(err))
		}
		if len(nodes) > 0 {
			wait = min(2*wait, saveEvery)
		}
		t.Reset(wait)
	}
}
