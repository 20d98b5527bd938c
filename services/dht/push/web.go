package push

import (
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"

	"github.com/parley-jami/parley/internal/atomicfile"
)

// recordSize is what a notice is padded to, so that its length tells nothing; some push
// services take no more than 4,096 bytes (RFC 8030 §7.2).
const recordSize = 3072

// authSize is the length of a subscription's secret (RFC 8291 §3.2).
const authSize = 16

// subscription is a browser's PushSubscription.
type subscription struct {
	Endpoint string `json:"endpoint"`
	Keys     struct {
		P256dh string `json:"p256dh"`
		Auth   string `json:"auth"`
	} `json:"keys"`
}

// check says whether its keys can be used.
func (s subscription) check() error {
	pub, err := decodeKey(s.Keys.P256dh)
	if err == nil {
		_, err = ecdh.P256().NewPublicKey(pub)
	}
	if err != nil {
		return fmt.Errorf("%w: p256dh is not a key of P-256", ErrEndpoint)
	}
	if auth, err := decodeKey(s.Keys.Auth); err != nil || len(auth) != authSize {
		return fmt.Errorf("%w: auth is not 16 bytes of base64", ErrEndpoint)
	}
	return nil
}

func decodeKey(text string) ([]byte, error) {
	text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	return base64.RawURLEncoding.DecodeString(text)
}

func parseSubscription(token string) (subscription, error) {
	var s subscription
	if err := json.Unmarshal([]byte(token), &s); err != nil {
		return s, fmt.Errorf("%w: key has to be a PushSubscription in JSON", ErrEndpoint)
	}
	return s, s.check()
}

// web is Web Push.
type web struct{ *Pusher }

func (s web) check(t Target) (string, error) {
	k, err := parseSubscription(t.Token)
	if err != nil {
		return "", err
	}
	u, err := endpoint(k.Endpoint, s.o.AllowPrivate)
	if err != nil {
		return "", err
	}
	return u.Hostname(), nil
}

func (s web) send(ctx context.Context, m Message, now time.Time) (*http.Response, error) {
	k, err := parseSubscription(m.Token)
	if err != nil {
		return nil, err
	}
	return s.encrypted(ctx, k, m, now)
}

// encrypted pushes as RFC 8291 says, with VAPID if there is one.
func (p *Pusher) encrypted(ctx context.Context, k subscription, m Message, now time.Time) (*http.Response, error) {
	to := &webpush.Subscription{Endpoint: k.Endpoint, Keys: webpush.Keys{P256dh: k.Keys.P256dh, Auth: k.Keys.Auth}}
	o := &webpush.Options{HTTPClient: p.client, RecordSize: recordSize, TTL: int(lifetime / time.Second), Urgency: webpush.Urgency(urgency(m)), VapidExpiration: now.Add(12 * time.Hour)}
	if v := p.o.VAPID; v != nil {
		o.Subscriber, o.VAPIDPublicKey, o.VAPIDPrivateKey = v.Contact, v.Public, v.private
	}
	resp, err := webpush.SendNotificationWithContext(ctx, m.Data, to, o)
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	return drained(resp), nil
}

// VAPID is the key that a node identifies itself with to push services (RFC 8292).
type VAPID struct {
	// Contact is an https: URL or the address of whom push services may write to.
	Contact string
	// Public is what browsers subscribe with: base64url of the point.
	Public  string
	private string
}

// OpenVAPID reads the key's file, and makes one when there is none. A file that is
// damaged is not replaced: subscriptions would end with it.
func OpenVAPID(path, contact string) (*VAPID, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		private, _, err := webpush.GenerateVAPIDKeys()
		if err != nil {
			return nil, fmt.Errorf("VAPID key: %w", err)
		}
		b = []byte(private + "\n")
		if err := atomicfile.Write(path, b, 0o600); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fmt.Errorf("VAPID key: %w", err)
	}
	private := strings.TrimSpace(string(b))
	raw, err := decodeKey(private)
	if err == nil {
		var k *ecdh.PrivateKey
		if k, err = ecdh.P256().NewPrivateKey(raw); err == nil {
			return &VAPID{Contact: contact, Public: base64.RawURLEncoding.EncodeToString(k.PublicKey().Bytes()), private: private}, nil
		}
	}
	return nil, fmt.Errorf("VAPID key: %s is damaged; put it back from a backup, or move it away to make a new one, which ends the subscriptions of browsers", path)
}
