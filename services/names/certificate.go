package names

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// certCheck is how often the files are looked at.
const certCheck = 10 * time.Second

// certificate is read again when its file changes, since public ones last for weeks
// only. While the new files don't fit each other the old certificate goes on.
type certificate struct {
	cert, key string
	log       *zap.Logger

	mu      sync.Mutex
	checked time.Time
	changed time.Time
	pair    *tls.Certificate
}

func newCertificate(cert, key string, log *zap.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	if err := c.readLocked(); err != nil {
		return nil, fmt.Errorf("names.cert, names.key: %w", err)
	}
	return c, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) >= certCheck {
		if err := c.readLocked(); err != nil {
			c.log.Warn("the old certificate stays", zap.Error(err))
		}
	}
	return c.pair, nil
}

func (c *certificate) readLocked() error {
	c.checked = time.Now()
	st, err := os.Stat(c.cert)
	if err != nil {
		return err
	}
	if c.pair != nil && st.ModTime().Equal(c.changed) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.pair, c.changed = &pair, st.ModTime()
	return nil
}
