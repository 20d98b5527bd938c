package mapping

import (
	"errors"
	"strings"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
)

// TestFits: the types that have rules take their own content alone, and the refusal names it.
func TestFits(t *testing.T) {
	for _, c := range []struct {
		typ  uint16
		data string
		says string // "": it fits
	}{
		{0, "a", ""}, {3, "a", ""}, {5, "a", ""}, {700, "", ""},
		{1, "a", "service"}, {1, "", "service"}, {1, "\x92\xa0\xc4\x01x", "service"}, {1, "\x92\xa4chat\xc4\x01x", ""},
		{TypeCertificate, "a", "certificate"},
	} {
		err := Fits(jami.ID{1}, c.typ, []byte(c.data))
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("type %d, %q: %v", c.typ, c.data, err)
		}
	}
}
