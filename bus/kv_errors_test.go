package bus

import (
	"errors"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

// What JetStream answers is told by its codes; those of lost races decide who holds a lease.
func TestErrorsOfJetStream(t *testing.T) {
	for name, c := range map[string]struct {
		e    apiError
		want error
	}{
		"another was faster":               {apiError{400, 10071, "wrong last sequence: 7"}, contract.ErrStale},
		"another is faster, in a cluster":  {apiError{400, 10164, "wrong last sequence"}, contract.ErrStale},
		"no such message":                  {apiError{404, 10037, "no message found"}, contract.ErrNotFound},
		"no such stream":                   {apiError{404, 10059, "stream not found"}, contract.ErrUnavailable},
		"full":                             {apiError{400, 10077, "maximum bytes exceeded"}, contract.ErrStorage},
		"no room on the disk":              {apiError{507, 10047, "insufficient storage"}, contract.ErrStorage},
		"something that nobody thought of": {apiError{503, 10008, "JetStream is not available"}, contract.ErrUnavailable},
	} {
		if err := c.e.err("x"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if (*apiError)(nil).err("x") != nil {
		t.Error("no error is one")
	}
}
