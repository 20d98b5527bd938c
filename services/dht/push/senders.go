package push

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxAnswer is read of an answer, so that its connection can be used again.
const maxAnswer = 4 << 10

// post sends a request. The answer's body is closed.
func post(ctx context.Context, c *http.Client, url string, body []byte, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEndpoint, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Parley")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	return drained(resp), nil
}

func drained(resp *http.Response) *http.Response {
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // the status is all that counts
	resp.Body.Close()
	return resp
}

func urgency(m Message) string {
	if m.Urgent {
		return "high"
	}
	return "normal"
}

// plain is UnifiedPush. Newer clients say by "P256DH|AUTH" in the topic that the notice
// is to be encrypted.
type plain struct{ *Pusher }

func (s plain) check(t Target) (string, error) {
	u, err := endpoint(t.Token, s.o.AllowPrivate)
	if err != nil {
		return "", err
	}
	switch _, ok, err := topicKeys(t); {
	case ok && err != nil:
		return "", err
	case ok && s.o.VAPID == nil:
		return "", fmt.Errorf("%w: this server has no key to encrypt with", ErrUnsupported)
	}
	return u.Hostname(), nil
}

func topicKeys(t Target) (k subscription, ok bool, err error) {
	p256dh, auth, ok := strings.Cut(t.Topic, "|")
	if !ok {
		return subscription{}, false, nil
	}
	k = subscription{Endpoint: t.Token}
	k.Keys.P256dh, k.Keys.Auth = p256dh, auth
	return k, true, k.check()
}

func (s plain) send(ctx context.Context, m Message, now time.Time) (*http.Response, error) {
	if k, ok, _ := topicKeys(m.Target); ok { // checked before
		return s.encrypted(ctx, k, m, now)
	}
	return post(ctx, s.client, m.Token, m.Data, map[string]string{"TTL": strconv.Itoa(int(lifetime / time.Second)), "Urgency": urgency(m)})
}

// hook is a webhook.
type hook struct{ *Pusher }

func (s hook) check(t Target) (string, error) {
	u, err := endpoint(t.Token, s.o.AllowPrivate)
	if err != nil {
		return "", err
	}
	return u.Hostname(), nil
}

func (s hook) send(ctx context.Context, m Message, now time.Time) (*http.Response, error) {
	return post(ctx, s.client, m.Token, m.Data, map[string]string{"X-Parley-Signature": Signature(s.o.Secret, m.Data, now)})
}

// Signature is the header that a webhook is signed with.
func Signature(secret, body []byte, now time.Time) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Platforms of gorush.
const (
	ios     = 1
	android = 2
)

// gorush hands a notice to the operator's server, which has the keys of FCM and APNs.
type gorush struct {
	*Pusher
	platform int
}

// notification is one of gorush. FCM takes what is to wake a client at once with the
// priority "high"; for APNs it has to be an alert that the app's extension may change.
type notification struct {
	Tokens           []string          `json:"tokens"`
	Platform         int               `json:"platform"`
	Priority         string            `json:"priority"`
	Data             json.RawMessage   `json:"data"`
	Topic            string            `json:"topic,omitempty"`
	TimeToLive       int               `json:"time_to_live,omitempty"`
	Expiration       int64             `json:"expiration,omitempty"`
	PushType         string            `json:"push_type,omitempty"`
	ContentAvailable bool              `json:"content_available,omitempty"`
	MutableContent   bool              `json:"mutable_content,omitempty"`
	Alert            map[string]string `json:"alert,omitempty"`
}

func (s gorush) check(t Target) (string, error) {
	if t.Token == "" {
		return "", fmt.Errorf("%w: without a device token", ErrEndpoint)
	}
	return "gorush", nil
}

func (s gorush) send(ctx context.Context, m Message, now time.Time) (*http.Response, error) {
	n := notification{Tokens: []string{m.Token}, Platform: s.platform, Priority: urgency(m), Data: m.Data}
	switch {
	case s.platform == android:
		n.TimeToLive = int(lifetime / time.Second)
	case m.Urgent || m.Timeout:
		n.Topic, n.Expiration, n.PushType, n.MutableContent, n.Priority = m.Topic, now.Add(lifetime).Unix(), "alert", true, "high"
		n.Alert = map[string]string{"title": "Jami"}
	default:
		n.Topic, n.Expiration, n.PushType, n.ContentAvailable = m.Topic, now.Add(lifetime).Unix(), "background", true
	}
	body, err := json.Marshal(map[string]any{"notifications": []notification{n}})
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	return post(ctx, s.gorush, strings.TrimSuffix(s.o.Gorush, "/")+"/api/push", body, nil)
}
