package opendht

import "testing"

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"version":1,"nodes":["7f354de1ac43199a9a3b50e65454576d60275842@192.0.2.1:4222","763f970b7c79d4b306743ca5702eb72620714030@[2001:db8::1]:4222"]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		nodes, err := parseState(b)
		if err == nil && len(nodes) > stateMost {
			t.Errorf("%d nodes", len(nodes))
		}
	})
}
