package coded

import (
	"errors"
	"io"
	"testing"
)

func TestError(t *testing.T) {
	busy, other, same := &Error{Of: "a", Code: "busy"}, &Error{Of: "a", Code: "gone"}, &Error{Of: "b", Code: "busy"}
	for _, tt := range []struct {
		err  *Error
		text string
	}{
		{busy, "a: busy"},
		{busy.With("%d at once", 7), "a: busy: 7 at once"},
		{busy.Because(io.EOF), "a: busy: EOF"},
	} {
		if tt.err.Error() != tt.text {
			t.Errorf("%q, want %q", tt.err, tt.text)
		}
		if !errors.Is(tt.err, busy) || errors.Is(tt.err, other) || errors.Is(tt.err, same) {
			t.Errorf("%v is not itself, or another", tt.err)
		}
	}
	if !errors.Is(busy.Because(io.EOF), io.EOF) {
		t.Error("the cause is lost")
	}
}
