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

func testHosted(t *testing.T) *hosted {
	t.Helper()
	acc, err := (&account.Store{Root: t.TempDir()}).Create(testKeys(), newSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &hosted{Service: &Service{env: &host.Env{Log: zap.NewNop()}, botTurn: make(chan struct{}, 1), now: time.Now}, acc: acc}
}

// callers are the processes of the node and what else may stand in the token.
var callers = []string{"dht", "swarm", "connect", "media", "conference", "bus", "up", "cli", "identity", "bot", "", "*"}

func TestSignPolicy(t *testing.T) {
	s := testHosted(t)
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
					switch {
					case key == contract.KeyDevice && caller == "swarm" && scheme == "pkcs1" && hash == "SHA-512":
						if err != nil || rsa.VerifyPKCS1v15(pub, crypto.SHA512, digest, reply.Signature) != nil {
							t.Errorf("%s: %v", what, err)
						}
						continue
					case key == contract.KeyDevice && caller == "connect" && scheme == "pkcs1" && hash == "SHA-384":
						if err != nil || rsa.VerifyPKCS1v15(pub, crypto.SHA384, digest, reply.Signature) != nil {
							t.Errorf("%s: %v", what, err)
						}
						continue
					case key == contract.KeyDevice && caller == "connect" && scheme == "pss" && (hash == "SHA-512" || hash == "SHA-384"):
						if err != nil || rsa.VerifyPSS(pub, hashes[hash], digest, reply.Signature, nil) != nil {
							t.Errorf("%s: %v", what, err)
						}
						continue
					}
					if !errors.Is(err, contract.ErrForbidden) {
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
	s := testHosted(t)
	cipher := make([]byte, 256)
	for _, caller := range callers {
		for _, key := range []contract.KeyName{contract.KeyDevice, contract.KeyAccount} {
			r := &bus.Request[contract.DecryptRequest]{Params: []string{"acc", caller}, Body: contract.DecryptRequest{Key: key, Cipher: cipher, Session: 32}}
			if got, err := s.open(t.Context(), r); !errors.Is(err, contract.ErrForbidden) {
				t.Errorf("%q with key %q: %v, %v; want forbidden", caller, key, got, err)
			}
		}
	}
}

func TestDecrypt(t *testing.T) {
	openers["tester"] = []contract.KeyName{contract.KeyDevice}
	t.Cleanup(func() { delete(openers, "tester") })
	s := testHosted(t)
	pub := &testKeys().Device.PublicKey
	session := bytes.Repeat([]byte{7}, 32)
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	block, err := rsa.EncryptPKCS1v15(rand.Reader, pub, session)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(cipher []byte, session int) ([]byte, error) {
		got, err := s.open(t.Context(), &bus.Request[contract.DecryptRequest]{Params: []string{"acc", "tester"},
			Body: contract.DecryptRequest{Key: contract.KeyDevice, Cipher: cipher, Session: session}})
		if err != nil {
			return nil, err
		}
		return got.Clear, nil
	}
	if got, err := ask(block, 32); err != nil || !bytes.Equal(got, session) {
		t.Errorf("%x, %v", got, err)
	}
	// What is wrong gives no sign of it, but another key each time.
	wrong := bytes.Clone(block)
	wrong[100] ^= 1
	for _, cipher := range [][]byte{wrong, bytes.Repeat([]byte{1}, 256)} {
		one, err1 := ask(cipher, 32)
		two, err2 := ask(cipher, 32)
		if err1 != nil || err2 != nil || len(one) != 32 || bytes.Equal(one, two) {
			t.Errorf("%x and %x, %v, %v", one, two, err1, err2)
		}
	}
	for _, n := range []int{0, 1, 15, 33, 245} {
		if _, err := ask(block, n); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("a session key of %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{0, 255, 257, 4096} {
		if _, err := ask(make([]byte, n), 32); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%d bytes: %v", n, err)
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
