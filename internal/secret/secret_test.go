package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTakeEnv(t *testing.T) {
	const name = "PARLEYTEST_SECRET"
	if b, err := TakeEnv(name); b != nil || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for in, want := range map[string]string{"s3cret": "s3cret", "": ""} {
		t.Setenv(name, in)
		b, err := TakeEnv(name)
		if string(b) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, b, err)
		}
		if _, ok := os.LookupEnv(name); ok {
			t.Error("it is still there")
		}
	}
}

func TestFirstLine(t *testing.T) {
	for in, want := range map[string]string{
		"s3cret pw\n": "s3cret pw", "no end": "no end", " spaces \r\nmore": " spaces ", "ünï\n": "ünï",
		strings.Repeat("x", Max) + "\n": strings.Repeat("x", Max),
		"":                              "", "\n": "", "\r\n": "", strings.Repeat("x", Max+1): "", "a\x00b\n": "",
	} {
		path := filepath.Join(t.TempDir(), "pw")
		if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := File(path)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: %.20q, %v", in, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%v does not name the file", err)
		}
	}
	if _, err := File("/nowhere/pw"); err == nil {
		t.Error("read a file that isn't there")
	}
}
