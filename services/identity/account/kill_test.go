package account

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// envVictim makes the test binary create accounts, one after another below that
// directory, until it is killed.
const envVictim = "PARLEY_TEST_CREATE_BELOW"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envVictim); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

func victim(dir string) {
	for i := 0; ; i++ {
		root := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(root, dirMode); err != nil {
			panic(err)
		}
		if _, err := Create(root, testKeys(), testSettings, time.Now()); err != nil {
			panic(err)
		}
	}
}

// TestKilledWhileCreating kills a process that creates accounts at several
// moments: each place has a whole account or none.
func TestKilledWhileCreating(t *testing.T) {
	for kill := range 6 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envVictim+"="+dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// After the first account is there, a little later each time.
		deadline := time.Now().Add(30 * time.Second)
		for {
			if _, err := os.Stat(filepath.Join(dir, "1")); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no account was made")
			}
			<-time.After(time.Millisecond)
		}
		<-time.After(time.Duration(kill) * 3 * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Fatal(err)
		}
		roots, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range roots {
			root := filepath.Join(dir, r.Name())
			if _, err := Load(root); err != nil && !errors.Is(err, ErrNone) {
				t.Errorf("%s: %v", r.Name(), err)
			}
		}
	}
}
