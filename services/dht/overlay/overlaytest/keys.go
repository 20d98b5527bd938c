package overlaytest

import (
	"crypto/rand"
	"crypto/rsa"
	"sync"
)

// Keys returns six keys of nodes, of 2,048 bits. They are made once in a process: each
// takes a moment.
var Keys = sync.OnceValue(func() []*rsa.PrivateKey {
	out := make([]*rsa.PrivateKey, 6)
	for i := range out {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out[i] = k
	}
	return out
})
