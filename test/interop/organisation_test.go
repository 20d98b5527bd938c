//go:build interop

package interop

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jams"
)

// organisation is `parley run jams` on this machine, with the operator's page of a
// node in Chromium.
type organisation struct {
	t    *testing.T
	n    *node
	b    *browser
	port int
	cmd  *exec.Cmd
}

func (o *organisation) start() {
	o.t.Helper()
	out := new(lockedBuffer)
	o.cmd = exec.Command(o.n.bin, "run", "jams", "--data", o.n.data, "--jams.listen", fmt.Sprintf("127.0.0.1:%d", o.port), "--admin.listen", "", "--log.format", "json")
	o.cmd.Stdout, o.cmd.Stderr = out, out
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := o.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(out.String(), "serving accounts"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			o.t.Fatalf("the account server does not start:\n%s", out.String())
		}
	}
}

func (o *organisation) stop(sig syscall.Signal) {
	o.t.Helper()
	if err := o.cmd.Process.Signal(sig); err != nil {
		o.t.Fatal(err)
	}
	if err := o.cmd.Wait(); sig == syscall.SIGTERM && err != nil {
		o.t.Error(err)
	}
}

func (o *organisation) eval(js string, into any) {
	o.t.Helper()
	if err := o.b.do(map[string]any{"do": "eval", "js": js}, into); err != nil {
		o.t.Fatal(err)
	}
}

// waits until an expression about the page is true.
func (o *organisation) waits(what, js string) {
	o.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var ok bool
		if o.eval("Boolean("+js+")", &ok); ok {
			return
		}
		if time.Now().After(end) {
			var text string
			o.eval(`document.querySelector("#organisation").innerText`, &text)
			o.shot("failed")
			o.t.Fatalf("%s: not seen; the section says %q", what, text)
		}
	}
}

func (o *organisation) shot(name string) {
	o.t.Helper()
	dir := os.Getenv("PARLEY_SHOTS")
	if dir == "" {
		return
	}
	o.eval(`document.querySelector("#organisation").scrollIntoView({ block: "end" })`, nil)
	if err := o.b.do(map[string]any{"do": "shot", "path": filepath.Join(dir, "organisation-"+name+".png")}, nil); err != nil {
		o.t.Error(err)
	}
}

func (o *organisation) enrol(user string, devices ...string) {
	o.t.Helper()
	text, err := os.ReadFile(filepath.Join(o.n.data, "jams", "tls", "self.pem"))
	if err != nil {
		o.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	c, err := jams.New(jams.Options{Server: fmt.Sprintf("https://127.0.0.1:%d", o.port), Roots: roots})
	if err != nil {
		o.t.Fatal(err)
	}
	defer c.Close()
	for _, name := range devices {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			o.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(o.t.Context(), 30*time.Second)
		defer cancel()
		if _, err := c.Enrol(ctx, user, "a long secret", name, key); err != nil {
			o.t.Fatal(err)
		}
	}
}

func (o *organisation) click(selector string) {
	o.t.Helper()
	o.eval(fmt.Sprintf(`document.querySelector(%q).click()`, selector), nil)
}

// An operator finds a device on the page and revokes it, then its account; the
// page follows the server's end and its return.
func TestOrganisationOnTheOperatorsPage(t *testing.T) {
	n := startNode(t)
	b := startBrowser(t, 440)
	o := &organisation{t: t, n: n, b: b, port: n.base + 350}
	links := n.status().Links
	if err := b.do(map[string]any{"do": "visit", "url": links.Operator}, nil); err != nil {
		t.Fatal(err)
	}
	o.waits("the page", `window.parley?.state`)
	o.waits("without an account server no section", `document.querySelector("#organisation").hidden`)

	for _, u := range []string{"alice", "bob", "<b>mallory"} {
		cmd := exec.Command(n.bin, "jams", "user", "add", u, "--display-name", "<i>"+u+"</i>", "--data", n.data)
		cmd.Stdin = strings.NewReader("a long secret\n")
		if out, err := cmd.CombinedOutput(); (err != nil) != strings.HasPrefix(u, "<") {
			t.Fatalf("%v %s", err, out)
		}
	}
	o.start()
	t.Cleanup(func() {
		if err := o.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	o.waits("a server that starts later is shown", `!document.querySelector("#organisation").hidden`)
	o.waits("nobody yet", `document.querySelector("#org-count").innerText === "No account was handed out yet."`)
	o.enrol("alice", "laptop", "phone <script>", "tablet")
	o.enrol("bob", "desk")
	o.waits("four devices", `document.querySelectorAll("#org-table .device").length === 4`)
	o.waits("text stays text", `!document.querySelector("#organisation script, #organisation i, #organisation b") && document.querySelector("#organisation").innerText.includes("phone <script>")`)
	o.shot("list")

	o.eval(`{ const s = document.querySelector("#org-search"); s.value = "bob"; s.dispatchEvent(new Event("input")); }`, nil)
	o.waits("bob is found alone", `document.querySelectorAll("#org-table tbody").length === 1 && document.querySelector("#org-count").innerText === "1 account found"`)
	o.eval(`{ const s = document.querySelector("#org-search"); s.value = ""; s.dispatchEvent(new Event("input")); }`, nil)
	o.waits("all again", `document.querySelectorAll("#org-table tbody").length === 2`)

	tablet := `#org-table button[aria-label="Revoke tablet of alice"]`
	o.click(tablet)
	o.waits("the question", `document.querySelector("#confirm").open && document.querySelector("#confirm-title").innerText === "Revoke tablet of alice?"`)
	o.shot("confirm")
	o.click("#confirm-no")
	o.waits("no is no", fmt.Sprintf(`!document.querySelector("#confirm").open && document.querySelector(%q)`, tablet))
	o.click(tablet)
	o.click("#confirm-yes")
	o.waits("the device is revoked", fmt.Sprintf(`!document.querySelector(%q) && [...document.querySelectorAll("#org-table .device .bad")].length === 1`, tablet))
	o.click(`#org-table button[aria-label="Revoke the account of bob"]`)
	o.click("#confirm-yes")
	o.waits("the account is revoked", `document.querySelector('tbody[data-account="bob"] .group .bad') && !document.querySelector('tbody[data-account="bob"] button')`)
	o.shot("revoked")

	out, err := exec.Command(n.bin, "jams", "user", "list", "--data", n.data, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []jams.Account
	if err := json.Unmarshal(out, &list); err != nil || len(list) != 2 || list[1].Revoked.IsZero() || len(list[0].Devices) != 3 || list[0].Devices[2].Revoked.IsZero() || list[0].Devices[2].Alias != "tablet" {
		t.Errorf("%s %v", out, err)
	}

	o.stop(syscall.SIGKILL)
	o.waits("its death", `document.querySelector("#org-error").innerText.startsWith("The account server does not answer")`)
	o.waits("nothing to click", `[...document.querySelectorAll("#org-table button")].every((b) => b.disabled)`)
	o.shot("dead")
	o.start()
	o.waits("it is back", `document.querySelector("#org-error").hidden && [...document.querySelectorAll("#org-table button")].every((b) => !b.disabled)`)
	o.stop(syscall.SIGTERM)
	o.waits("its end", `document.querySelector("#org-error").innerText.startsWith("The account server has ended")`)

	// What a screen reader and a keyboard need: each control has a name of its own.
	var bad []string
	o.eval(`[...document.querySelectorAll("#organisation button, #organisation input, #organisation th, #organisation [role=region]")].filter((e) => e.offsetParent !== null)
		.filter((e) => !(e.getAttribute("aria-label") || e.innerText?.trim() || e.textContent.trim() || e.labels?.length || e.getAttribute("aria-labelledby"))).map((e) => e.outerHTML)`, &bad)
	if len(bad) > 0 {
		t.Errorf("without a name: %q", bad)
	}
}
