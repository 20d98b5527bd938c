package embed

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Who says hello when, and whether two machines are found to use the credentials.
func TestTwoMachinesWithTheSameCredentials(t *testing.T) {
	for _, c := range []struct {
		name  string
		said  string // an instance each ten seconds; . is nobody
		twice string // at each of them: y or n
	}{
		{"one", "aaaa", "nnnn"},
		{"started again", "aabbb", "nnnnn"},
		{"started again and again", "abcdefghijklmnopqrstuvwxyz", strings.Repeat("n", 26)},
		{"two", "aababab", "nnnyyyy"},
		{"three", "abcabc", "nnnyyy"},
		{"one of the two ends", "abaabbbbb", "nnyyyyynn"},
		{"silent for long, and back", "ab....a", "nn....n"},
		{"of a version that does not tell", "-a-a", "nnnn"},
	} {
		t.Run(c.name, func(t *testing.T) {
			core, logs := observer.New(zap.WarnLevel)
			w := &workers{by: map[string]*workerFile{"hall2": {}}, here: map[string]*presence{}, log: zap.New(core)}
			got, at := "", time.Unix(1e9, 0)
			for _, x := range c.said {
				at = at.Add(10 * time.Second)
				if x == '.' {
					got += "."
					continue
				}
				welcome, err := w.hello("hall2", strings.Trim(fmt.Sprintf("%c", x), "-"), at)
				switch {
				case err != nil:
					t.Fatal(err)
				case welcome.Twice:
					got += "y"
				default:
					got += "n"
				}
			}
			if got != c.twice {
				t.Errorf("%s is answered %s, want %s", c.said, got, c.twice)
			}
			if said, want := logs.Len(), min(1, strings.Count(c.twice, "y")); said != want {
				t.Errorf("said %d times, want %d", said, want)
			}
		})
	}
	w := &workers{here: map[string]*presence{}, by: map[string]*workerFile{}}
	if w.hello("unknown", "a", time.Now()); len(w.here) != 0 {
		t.Error("who was never added is remembered")
	}
}
