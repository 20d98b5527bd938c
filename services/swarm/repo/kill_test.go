package repo_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/swarm/repo"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

// killDir, when set, makes the test binary a writer that is to be killed.
const killDir = "PARLEY_TEST_KILL_DIR"

// TestKilledWriter kills a process that writes, at several moments; what it has
// acknowledged has to be there.
func TestKilledWriter(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		writeUntilKilled(t, dir)
	}
	for i := range 5 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var acked []string
		timer := time.AfterFunc(time.Minute, func() { t.Error("the writer hangs"); kill(t, cmd) })
		for sc := bufio.NewScanner(out); sc.Scan(); {
			id, ok := strings.CutPrefix(sc.Text(), "ack ")
			if !ok {
				continue
			}
			if acked = append(acked, id); len(acked) == 8+3*i {
				// A little later than an acknowledgement: in the middle of the next commit.
				time.AfterFunc(time.Duration(i)*600*time.Microsecond, func() { kill(t, cmd) })
			}
		}
		timer.Stop()
		if err := cmd.Wait(); err == nil {
			t.Fatal("the writer ended by itself")
		}
		all, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		r, err := repo.Open(all[0], filepath.Base(all[0]))
		if err == nil {
			err = r.Load(context.Background(), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		page, _, err := r.Page("", 200, 1<<20, size)
		if err != nil || len(page) < len(acked) || len(acked) == 0 {
			t.Fatalf("%d acknowledged, %d there, %v", len(acked), len(page), err)
		}
		for j, id := range acked {
			if page[j].ID != id {
				t.Fatalf("message %d is %s, acknowledged was %s", j, page[j].ID, id)
			}
		}
	}
}

func kill(t *testing.T, cmd *exec.Cmd) {
	if err := cmd.Process.Kill(); err != nil {
		t.Log(err)
	}
}

func writeUntilKilled(t *testing.T, dir string) {
	id := swarmtest.New(t)
	r, err := repo.Create(dir, "main", &id.Author, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		e, err := r.Append(&id.Author, text(fmt.Sprint(i), ""), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("ack " + e.ID)
	}
}
