package identity

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

var testKeys = sync.OnceValue(func() *account.Keys {
	var k [3]*rsa.PrivateKey
	for i := range k {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		k[i] = key
	}
	return &account.Keys{CA: k[0], Account: k[1], Device: k[2]}
})

func testService(t *testing.T) *Service {
	t.Helper()
	acc, err := account.Create(t.TempDir(), testKeys(), newSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &Service{env: &host.Env{Log: zap.NewNop()}, acc: acc, botTurn: make(chan struct{}, 1), now: time.Now}
}

// callers are the processes of the node and what else may stand in the token.
var callers = []string{"dht", "swarm", "connect", "media", "conference", "bus", "up", "cli", "identity", "bot", "", "*"}

func TestSignPolicy(t *testing.T) {
	s := testService(t)
	pub := s.acc.Chain.Device.PublicKey.(*rsa.PublicKey)
	for _, caller := range callers {
		for _, key := range []contract.KeyName{contract.KeyDevice, contract.KeyAccount, "ca", ""} {
			for _, scheme := range []string{"pkcs1", "pss", "raw", ""} {
				for _, hash := range []string{"SHA-512", "SHA-384", "SHA-256", "SHA-1", ""} {
					digest := make([]byte, 64)
					if h, ok := hashes[hash]; ok {
						digest = digest[:h.Size()]
					}
					r := &bus.Request[contract.SignRequest]{Params: []string{"acc", caller},
						Body: contract.SignRequest{Key: key, Hash: hash, Scheme: scheme, Digest: digest}}
					reply, err := s.sign(t.Context(), r)
					what := fmt.Sprintf("%q with key %q, %q and %q", caller, key, scheme, hash)
					if caller == "swarm" && key == contract.KeyDevice && scheme == "pkcs1" && hash == "SHA-512" {
						if err != nil || rsa.VerifyPKCS1v15(pub, crypto.SHA512, digest, reply.Signature) != nil {
							t.Errorf("%s: %v", what, err)
						}
					} else if !errors.Is(err, contract.ErrForbidden) {
						t.Errorf("%s: %v, %v; want forbidden", what, reply, err)
					}
				}
			}
		}
	}
}

// TestSignerOpts: what other callers may be allowed one day.
func TestSignerOpts(t *testing.T) {
	key := testKeys().Device
	for name, h := range hashes {
		digest := make([]byte, h.Size())
		for _, scheme := range []string{"pkcs1", "pss"} {
			opts, err := signerOpts(&contract.SignRequest{Hash: name, Scheme: scheme, Digest: digest})
			if err != nil {
				t.Fatal(err)
			}
			sig, err := key.Sign(rand.Reader, digest, opts)
			if err != nil {
				t.Fatal(err)
			}
			if scheme == "pss" {
				err = rsa.VerifyPSS(&key.PublicKey, h, digest, sig, &rsa.PSSOptions{SaltLength: h.Size()})
			} else {
				err = rsa.VerifyPKCS1v15(&key.PublicKey, h, digest, sig)
			}
			if err != nil {
				t.Errorf("%s %s: %v", name, scheme, err)
			}
		}
	}
	for _, q := range []contract.SignRequest{
		{Hash: "SHA-1", Scheme: "pkcs1", Digest: make([]byte, 20)},
		{Hash: "SHA-512", Scheme: "pkcs1", Digest: make([]byte, 32)},
		{Hash: "SHA-512", Scheme: "raw", Digest: make([]byte, crypto.SHA512.Size())},
	} {
		if _, err := signerOpts(&q); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%+v: %v, want bad_request", q, err)
		}
	}
}

func TestNobodyDecrypts(t *testing.T) {
	s := testService(t)
	cipher, err := jami.EncryptTo(&testKeys().Device.PublicKey, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	for _, caller := range callers {
		for _, key := range []contract.KeyName{contract.KeyDevice, contract.KeyAccount} {
			r := &bus.Request[contract.DecryptRequest]{Params: []string{"acc", caller}, Body: contract.DecryptRequest{Key: key, Cipher: cipher}}
			if got, err := s.open(t.Context(), r); !errors.Is(err, contract.ErrForbidden) {
				t.Errorf("%q with key %q: %v, %v; want forbidden", caller, key, got, err)
			}
		}
	}
}

func TestDecrypt(t *testing.T) {
	openers["tester"] = []contract.KeyName{contract.KeyDevice}
	t.Cleanup(func() { delete(openers, "tester") })
	s := testService(t)
	for _, size := range []int{0, 1, 245, 246, 4096} {
		clear := bytes.Repeat([]byte{7}, size)
		cipher, err := jami.EncryptTo(&testKeys().Device.PublicKey, clear)
		if err != nil {
			t.Fatal(err)
		}
		r := &bus.Request[contract.DecryptRequest]{Params: []string{"acc", "tester"},
			Body: contract.DecryptRequest{Key: contract.KeyDevice, Cipher: cipher}}
		if got, err := s.open(t.Context(), r); err != nil || !bytes.Equal(got.Clear, clear) {
			t.Errorf("%d bytes: %v", size, err)
		}
		cipher[len(cipher)-1] ^= 1
		if got, err := s.open(t.Context(), r); size > 245 && err == nil {
			t.Errorf("%d bytes, damaged: %x", size, got.Clear)
		}
	}
}

func TestCheckBot(t *testing.T) {
	user := "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	good := contract.BotCreate{Name: "echo", Room: "main", Rights: []contract.Right{contract.RightListen}, UserKey: user}
	if err := checkBot(&good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*contract.BotCreate){
		"no name":       func(b *contract.BotCreate) { b.Name = "" },
		"dot":           func(b *contract.BotCreate) { b.Name = "a.b" },
		"wildcard":      func(b *contract.BotCreate) { b.Room = ">" },
		"star":          func(b *contract.BotCreate) { b.Name = "*" },
		"space":         func(b *contract.BotCreate) { b.Name = "a b" },
		"newline":       func(b *contract.BotCreate) { b.Name = "a\n" },
		"account key":   func(b *contract.BotCreate) { b.UserKey = "A" + user[1:] },
		"seed":          func(b *contract.BotCreate) { b.UserKey = "S" + user },
		"no right":      func(b *contract.BotCreate) { b.Rights = nil },
		"any":           func(b *contract.BotCreate) { b.Rights = []contract.Right{contract.RightAny} },
		"right twice":   func(b *contract.BotCreate) { b.Rights = append(b.Rights, b.Rights...) },
		"unknown right": func(b *contract.BotCreate) { b.Rights = []contract.Right{"root"} },
	} {
		b := good
		change(&b)
		if err := checkBot(&b); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%s: %v, want bad_request", name, err)
		}
	}
}
