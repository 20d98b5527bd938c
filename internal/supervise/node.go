package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Node is what a running node tells the command line, in DATA/run/node.json and
// on its Unix socket.
type Node struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	BusURL  string    `json:"bus_url"`
	Admin   string    `json:"admin,omitempty"`
	Account string    `json:"account,omitempty"` // Jami Id, once it is known
	Alias   string    `json:"alias,omitempty"`
	// Links is how people reach the node: "join", "operator", "sip", "jami". The
	// operator's holds a token, so the file is for the owner alone.
	Links map[string]string `json:"links,omitempty"`
}

// NodeFile is where Node is kept.
func NodeFile(data string) string { return filepath.Join(data, "run", "node.json") }

// WriteNode replaces DATA/run/node.json at once, with mode 0600.
func WriteNode(data string, n *Node) error {
	body, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return fmt.Errorf("node file: %w", err)
	}
	path := NodeFile(data)
	tmp, err := os.CreateTemp(filepath.Dir(path), ".node-*") // mode 0600
	if err != nil {
		return fmt.Errorf("node file: %w", err)
	}
	_, err = tmp.Write(append(body, '\n'))
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("node file: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// ReadNode returns what WriteNode wrote last.
func ReadNode(data string) (*Node, error) {
	text, err := os.ReadFile(NodeFile(data))
	if err != nil {
		return nil, err
	}
	n := new(Node)
	if err := json.Unmarshal(text, n); err != nil {
		return nil, fmt.Errorf("%s: %w", NodeFile(data), err)
	}
	return n, nil
}
