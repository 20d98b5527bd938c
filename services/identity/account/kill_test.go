package account

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// envVictim makes the test binary create accounts, one after another below that
// directory, until it is killed.
const envVictim = "PARLEY_TEST_CREATE_BELOW"

// envWriter makes the test binary write the archive below that directory until it is
// killed; envKills is how many times that is done.
const (
	envWriter = "PARLEY_TEST_WRITE_BELOW"
	envKills  = "PARLEY_TEST_KILLS"
)

const settingCount = "test.count"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envVictim); dir != "" {
		victim(dir)
	}
	if dir := os.Getenv(envWriter); dir != "" {
		writer(dir)
	}
	os.Exit(m.Run())
}

func victim(dir string) {
	for i := 0; ; i++ {
		root := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(root, dirMode); err != nil {
			panic(err)
		}
		if _, err := (&Store{Root: root}).Create(testKeys(), testSettings, time.Now()); err != nil {
			panic(err)
		}
	}
}

// TestKilledWhileCreating kills a process that creates accounts at several
// moments: each place has a whole account or none.
func TestKilledWhileCreating(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
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
			if _, err := (&Store{Root: root}).Load(); err != nil && !errors.Is(err, ErrNone) {
				t.Errorf("%s: %v", r.Name(), err)
			}
		}
	}
}

// writer counts in a setting of the archive and tells what it begins and has done.
func writer(root string) {
	a, err := (&Store{Root: root}).Load()
	if err != nil {
		panic(err)
	}
	for {
		err := a.ChangeArchive(nil, func(archive *jami.Archive) error {
			n, _ := strconv.Atoi(archive.Settings[settingCount])
			archive.Settings[settingCount] = fmt.Sprint(n + 1)
			_, err := fmt.Printf("begin %d\n", n+1)
			return err
		})
		if err != nil {
			panic(err)
		}
	}
}

// TestKilledWhileWritingTheArchive: after kill -9 at any moment the archive is whole,
// the old one or the new one.
func TestKilledWhileWritingTheArchive(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	kills := 40
	if n, err := strconv.Atoi(os.Getenv(envKills)); err == nil {
		kills = n
	}
	root, a := create(t)
	old, next, writes := 0, 0, 0
	for kill := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envWriter+"="+root)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() { // it writes now
			t.Fatal("the victim said nothing")
		}
		time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		last := lines.Text()
		for writes++; lines.Scan(); writes++ {
			last = lines.Text()
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the victim ended by itself")
		}
		var begun int
		if _, err := fmt.Sscanf(last, "begin %d", &begun); err != nil {
			t.Fatalf("%q: %v", last, err)
		}
		b, err := os.ReadFile(filepath.Join(a.Dir, fileArchive))
		if err != nil {
			t.Fatal(err)
		}
		archive, err := jami.ParseArchive(b, nil)
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		switch n, _ := strconv.Atoi(archive.Settings[settingCount]); n {
		case begun:
			next++
		case begun - 1:
			old++
		default:
			t.Fatalf("kill %d: the archive has %d, write %d was begun", kill, n, begun)
		}
	}
	if _, err := (&Store{Root: root}).Load(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(a.Dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	t.Logf("%d kills in %d writes: the old archive %d times, the new one %d times", kills, writes, old, next)
}
