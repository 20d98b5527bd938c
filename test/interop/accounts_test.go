//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// accountsPage is the operator's page of a node in Chromium.
type accountsPage struct {
	t *testing.T
	n *node
	b *browser
}

func (p *accountsPage) eval(js string, into any) {
	p.t.Helper()
	if err := p.b.do(map[string]any{"do": "eval", "js": js}, into); err != nil {
		p.t.Fatal(err)
	}
}

// waits until an expression about the page is true.
func (p *accountsPage) waits(what, js string) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var ok bool
		if p.eval("Boolean("+js+")", &ok); ok {
			return
		}
		if time.Now().After(end) {
			var text string
			p.eval(`document.querySelector("#accounts").innerText + "\n" + document.querySelector("#toasts").innerText`, &text)
			p.shots("failed")
			p.t.Fatalf("%s: not seen; the section says %q", what, text)
		}
	}
}

// shots takes one in light, in dark, and on a telephone.
func (p *accountsPage) shots(name string) {
	p.t.Helper()
	dir := os.Getenv("PARLEY_SHOTS")
	for _, look := range []struct {
		name          string
		width, height int
		dark          bool
	}{{"light", 1280, 1100, false}, {"dark", 1280, 1100, true}, {"phone", 390, 1500, false}, {"light", 1280, 720, false}} {
		if err := p.b.do(map[string]any{"do": "look", "width": look.width, "height": look.height, "dark": look.dark}, nil); err != nil {
			p.t.Fatal(err)
		}
		var wide string
		p.eval(`document.documentElement.scrollWidth > innerWidth ? [...document.querySelectorAll("#accounts *")].filter((e) => e.getBoundingClientRect().right > innerWidth && !e.closest(".table-wrap")).map((e) => e.outerHTML.slice(0, 90)).join() || "something else" : ""`, &wide)
		if wide != "" {
			p.t.Errorf("%s %s is wider than the window: %s", name, look.name, wide)
		}
		if dir == "" || look.height == 720 {
			continue
		}
		p.eval(`document.querySelector("#accounts-title").scrollIntoView()`, nil)
		if err := p.b.do(map[string]any{"do": "shot", "path": filepath.Join(dir, "accounts-"+name+"-"+look.name+".png")}, nil); err != nil {
			p.t.Error(err)
		}
	}
}

func (p *accountsPage) contacts(account string) []contract.Contact {
	p.t.Helper()
	var list contract.Contacts
	if err := json.Unmarshal([]byte(p.n.parley("account", "contacts", "--account", account, "--json")), &list); err != nil {
		p.t.Fatal(err)
	}
	return list.Contacts
}

// An operator makes use of two accounts: contacts, a request whose name is HTML, devices.
func TestAccountsOnTheOperatorsPage(t *testing.T) {
	n := startNode(t)
	p := &accountsPage{t: t, n: n, b: startBrowser(t, 440)}
	if err := p.b.do(map[string]any{"do": "visit", "url": n.status().Links.Operator}, nil); err != nil {
		t.Fatal(err)
	}
	p.waits("the main account", `document.querySelectorAll("#accounts > details").length === 1`)
	const evil = `<img src=x onerror="window.pwned=1"><b>Mallory</b>`
	var second contract.Account
	if err := json.Unmarshal([]byte(n.parley("account", "create", "--alias", evil, "--json")), &second); err != nil {
		t.Fatal(err)
	}
	p.waits("the second account, as text", fmt.Sprintf(`document.querySelector("[data-account='%s'] h3")?.innerText.includes("<img src=x")`, second.ID))
	var main string
	p.eval(`document.querySelector("#accounts > details").dataset.account`, &main)
	of := func(account, rest string) string { return fmt.Sprintf(`[data-account='%s'] %s`, account, rest) }
	click := func(sel string) { p.eval(fmt.Sprintf(`document.querySelector(%q).click()`, sel), nil) }
	enter := func(sel, text string) {
		p.eval(fmt.Sprintf(`{ const e = document.querySelector(%q); e.value = %q; e.dispatchEvent(new Event("input")); }`, sel, text), nil)
	}

	// By the keyboard alone: open the contacts, type an id, Enter.
	who := "0123" + strings.Repeat("ab", 18)
	p.eval(fmt.Sprintf(`document.querySelector(%q).focus()`, of(main, "[data-testid=contacts] > summary")), nil)
	if err := p.b.do(map[string]any{"do": "press", "key": "Enter"}, nil); err != nil {
		t.Fatal(err)
	}
	p.waits("no contacts", fmt.Sprintf(`document.querySelector(%q).innerText === "No contacts yet."`, of(main, "[data-testid=contact-count]")))
	enter(of(main, "[data-testid=contact-id]"), "alice")
	p.eval(fmt.Sprintf(`document.querySelector(%q).focus()`, of(main, "[data-testid=contact-id]")), nil)
	if err := p.b.do(map[string]any{"do": "press", "key": "Enter"}, nil); err != nil {
		t.Fatal(err)
	}
	p.waits("that is no id", fmt.Sprintf(`document.querySelector(%q).innerText.includes("40 digits")`, of(main, "[data-testid=contact-problem]")))
	enter(of(main, "[data-testid=contact-id]"), "jami:"+strings.ToUpper(who))
	if err := p.b.do(map[string]any{"do": "press", "key": "Enter"}, nil); err != nil {
		t.Fatal(err)
	}
	row := of(main, fmt.Sprintf("tr[data-contact='%s']", who))
	state := func(word string) {
		p.waits(word, fmt.Sprintf(`document.querySelector(%q)?.innerText === %q`, row+" .badge", word))
	}
	state("Not confirmed yet")
	click(row + " button[data-key^=block]")
	p.waits("the question", `document.querySelector("#confirm").open && document.querySelector("#confirm-title").innerText.startsWith("Block ")`)
	click("#confirm-no")
	p.waits("no is no", `!document.querySelector("#confirm").open`)
	state("Not confirmed yet")
	click(row + " button[data-key^=block]")
	click("#confirm-yes")
	state("Blocked")
	if list := p.contacts(main); len(list) != 1 || list[0].ID != who || !list[0].Banned {
		t.Errorf("contacts %+v", list)
	}
	n.parley("account", "contact", "unblock", who) // elsewhere: the page follows
	state("Removed")
	for i := range 60 {
		n.parley("account", "contact", "block", fmt.Sprintf("%040x", i+1<<20))
	}
	count := fmt.Sprintf(`document.querySelector(%q).innerText`, of(main, "[data-testid=contact-count]"))
	p.waits("a page", count+` === "50 of 61 contacts"`)
	enter(of(main, "[data-testid=contact-search]"), "0123")
	p.waits("one is found", count+` === "1 contact found"`)
	enter(of(main, "[data-testid=contact-search]"), "f0")
	p.waits("nobody is found", count+` === "Nobody is found."`)
	enter(of(main, "[data-testid=contact-search]"), "")
	p.waits("all again", count+` === "50 of 61 contacts"`)

	// A stranger's name is text, whatever it says.
	n.parley("account", "contact", "add", main, "--account", second.ID)
	p.waits("the request is told", fmt.Sprintf(`document.querySelector(%q)?.offsetParent`, of(main, "[data-testid=asks]")))
	click(of(main, "[data-testid=requests] > summary"))
	asks := of(main, fmt.Sprintf("tr[data-request='%s']", second.ID))
	p.waits("its name as text", fmt.Sprintf(`document.querySelector(%q)?.innerText.includes("<b>Mallory</b>")`, asks))
	p.waits("no element of it", `!window.pwned && !document.querySelector("#accounts b, #accounts img[src=x]")`)

	click(of(main, "[data-testid=qr] > summary"))
	p.waits("the QR code", fmt.Sprintf(`(() => { const i = document.querySelector(%q); return i?.complete && i.naturalWidth > 0 && !i.hidden; })()`, of(main, "img.qr")))
	click(of(main, "[data-testid=devices] > summary"))
	p.waits("this node's device", fmt.Sprintf(`document.querySelector(%q)?.innerText.includes("This node")`, of(main, "[data-testid=devices] tbody")))
	p.eval(fmt.Sprintf(`document.querySelector(%q).open = false`, of(main, "[data-testid=contacts]")), nil)
	p.shots("open")
	p.eval(fmt.Sprintf(`for (const f of document.querySelectorAll(%q)) f.open = f.dataset.testid === "contacts"`, of(main, ".fold")), nil)
	p.waits("the contacts", count+` === "50 of 61 contacts"`)
	p.shots("contacts")

	click(asks + " button[data-key^=accept]")
	p.waits("the request is answered", fmt.Sprintf(`!document.querySelector(%q)`, asks))
	enter(of(main, "[data-testid=alias]"), "Town hall")
	click(of(main, ".rename button"))
	p.waits("renamed", fmt.Sprintf(`document.querySelector(%q).innerText === "Town hall"`, of(main, "h3")))

	// What is sealed reaches identity: a device that it does not know is refused by it.
	device := strings.Repeat("ef", 32)
	p.eval(fmt.Sprintf(`{ const real = window.fetch; window.fetch = async (path, o) => {
		const r = await real(path, o);
		if (!String(path).endsWith("/devices")) return r;
		const list = await r.json();
		list.devices.push({ id: %q, name: "<i>old</i> laptop", created: "2025-01-01T00:00:00Z", seen: "2025-02-01T00:00:00Z" });
		return new Response(JSON.stringify(list), { status: 200 });
	}; document.querySelector(%q).open = true; }`, device, of(main, "[data-testid=devices]")), nil)
	n.parley("account", "set", "--alias", "Town hall 2")
	revoke := of(main, fmt.Sprintf("tr[data-device='%s'] button", device))
	p.waits("the other device", fmt.Sprintf(`document.querySelector(%q)`, revoke))
	click(revoke)
	p.waits("it says for ever", `document.querySelector("#confirm").open && document.querySelector("#confirm-text").innerText.includes("for ever")`)
	p.shots("revoke")
	click("#confirm-yes")
	p.waits("identity's words", `document.querySelector("#toasts").innerText.includes("No device of that id is known")`)

	// With a password that the node lacks it is not offered.
	pw := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(pw, []byte("a long secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.parley("account", "password", "--password-file", pw)
	n.stop()
	n.start()
	p.waits("a locked archive", fmt.Sprintf(`document.querySelector(%q).innerText.includes("the node does not have")`, of(main, ".facts")))
	p.waits("no button, but the command", fmt.Sprintf(`!document.querySelector(%q) && document.querySelector(%q).innerText.includes("account device revoke")`, revoke, of(main, "[data-testid=devices]")))
	p.shots("locked")

	// What a screen reader and a keyboard need: each control has a name of its own.
	var bad []string
	p.eval(`[...document.querySelectorAll("#accounts button, #accounts input, #accounts summary, #accounts th, #accounts [role=region], #accounts img")].filter((e) => e.offsetParent !== null)
		.filter((e) => !(e.getAttribute("aria-label") || e.alt || e.textContent.trim() || e.labels?.length || e.getAttribute("aria-labelledby"))).map((e) => e.outerHTML)`, &bad)
	if len(bad) > 0 {
		t.Errorf("without a name: %q", bad)
	}
	if log := p.b.log.String(); strings.Contains(log, "Content Security Policy") || strings.Contains(log, "page error") {
		t.Errorf("the browser complains: %s", log)
	}
}
