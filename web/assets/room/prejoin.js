// Before joining: name, PIN, microphone and its level.
import { $, h, setText, store, sentence } from "../ui.js";
import { devices, meter, micPossible, micProblem } from "./mic.js";

export class Prejoin {
  // onjoin({name, pin, muted, listen}) is called when somebody wants in.
  // moderator: the link holds a moderator's token, which stands for the PIN and opens
  // a locked room.
  constructor(room, mic, moderator, onjoin) {
    this.room = room;
    this.moderator = moderator;
    this.mic = mic;
    this.onjoin = onjoin;
    $("#name").value = store.get("name");
    $("#join-muted").checked = store.get("muted") === "1";
    $("#mic-allow").addEventListener("click", () => this.openMic());
    $("#mic").addEventListener("change", (e) => {
      store.set("mic", e.target.value);
      this.openMic(e.target.value);
    });
    $("#join-form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.submit($("#join").hidden);
    });
    $("#join-listen").addEventListener("click", () => this.submit(true));
    meter($("#pre-meter"), () => mic.read());
    setText($("#pre-title"), room);
    document.title = `${room} · Parley`;
  }

  async start() {
    this.face();
    if (matchMedia("(pointer: fine)").matches && !$("#name").value) $("#name").focus(); // a phone would open its keyboard
    if (!micPossible()) {
      this.micFailed({ name: "InsecureContext" });
      return;
    }
    // Asked at once only where the answer is known to be yes.
    try {
      const p = await navigator.permissions.query({ name: "microphone" });
      if (p.state === "granted") await this.openMic();
    } catch { /* a browser without this question: the button asks */ }
  }

  // face reads what a stranger may know of the room, again while the node starts.
  async face() {
    clearTimeout(this.timer);
    let f;
    try {
      const r = await fetch(`/api/v1/rooms/${encodeURIComponent(this.room)}/face`);
      f = await r.json();
      if (!r.ok) {
        if (f.code === "not_found") return this.wrongLink("There is no room of this name. Check the link, or ask who invited you.");
        if (f.code === "bad_request") return this.wrongLink("This link is not right: a room’s name has only small letters a–z, digits and hyphens.");
        setText($("#pre-sub"), sentence(f.message));
        if (f.retry) this.timer = setTimeout(() => this.face(), 2000);
        return;
      }
    } catch {
      setText($("#pre-sub"), "The node does not answer. Trying again…");
      this.timer = setTimeout(() => this.face(), 2000);
      return;
    }
    setText($("#pre-title"), f.title || f.name);
    document.title = `${f.title || f.name} · Parley`;
    if (this.moderator) setText($("#pre-sub"), f.locked ? "You join as a moderator; the room is locked for others." : "You join as a moderator. Check your name and microphone.");
    else setText($("#pre-sub"), f.locked ? "This room is locked. A moderator has to open it before you can join." : "Check your name and microphone, then join.");
    $("#pin-field").hidden = !f.pin || this.moderator;
    if (!window.isSecureContext && f.https_port) this.offerSecure(f.https_port);
  }

  // wrongLink leaves nothing but the way to another room.
  wrongLink(text) {
    setText($("#pre-sub"), text);
    for (const el of document.querySelectorAll("#join-form .field, #mic-box, #join-form .check, .join-buttons")) el.hidden = true;
    $("#pre-elsewhere").hidden = false;
    this.mic.close();
  }

  // offerSecure links to this room where the browser gives the microphone.
  offerSecure(port) {
    const url = new URL(location.href);
    url.protocol = "https:";
    url.port = port;
    $("#mic-problem").replaceChildren(h("span", {}, "Browsers give the microphone only to secure pages, and this one was opened by http. ",
      h("a", { href: url.href, "data-testid": "secure" }, "Open the secure page"), " to speak; should the browser warn of its certificate, go on. Here you can only listen."));
  }

  async openMic(id = store.get("mic")) {
    try {
      await this.mic.open(id);
    } catch (err) {
      this.micFailed(err);
      return false;
    }
    $("#mic-ask").hidden = true;
    $("#mic-problem").hidden = true;
    $("#mic-ready").hidden = false;
    this.canSpeak(true);
    await fillInputs($("#mic"), this.mic);
    return true;
  }

  fill() {
    if (this.mic.track) fillInputs($("#mic"), this.mic);
  }

  async micLost() {
    this.mic.close();
    await this.openMic("");
  }

  micFailed(err) {
    const box = $("#mic-problem");
    box.hidden = false;
    setText(box, micProblem(err));
    $("#mic-ready").hidden = true;
    const never = err.name === "InsecureContext";
    $("#mic-ask").hidden = never;
    setText($("#mic-allow .text"), "Try again");
    this.canSpeak(false);
  }

  // canSpeak shows what is possible with or without a microphone.
  canSpeak(yes) {
    $("#join").hidden = $("#join-muted").parentElement.hidden = !yes;
    $("#join-listen").className = yes ? "plain wide" : "primary wide";
  }

  async submit(listen) {
    const name = $("#name").value.trim();
    const pin = $("#pin").value.trim();
    if (!name) return this.fail("Enter your name: the others see it.", $("#name"));
    if (!$("#pin-field").hidden && !pin) return this.fail("Enter the PIN of this room.", $("#pin"));
    this.busy(true);
    if (!listen && !this.mic.track && !(await this.openMic())) {
      this.busy(false);
      $("#join-listen").focus();
      return;
    }
    store.set("name", name);
    const muted = $("#join-muted").checked;
    store.set("muted", muted ? "1" : "");
    await this.onjoin({ name, pin, muted, listen });
    this.busy(false);
  }

  busy(on) {
    $("#join").disabled = $("#join-listen").disabled = on;
    setText($("#join"), on ? "Joining…" : "Join");
    if (on) $("#pre-error").hidden = true;
  }

  // fail shows why joining did not work, where it can be put right.
  fail(text, field) {
    const box = $("#pre-error");
    box.hidden = false;
    setText(box, sentence(text));
    for (const f of [$("#name"), $("#pin")]) f.toggleAttribute("aria-invalid", false);
    if (field) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", "pre-error" + (field.id === "pin" ? " pin-hint" : ""));
      field.focus();
    }
  }

  // refused words a refusal of the node.
  refused(err) {
    switch (err.code) {
      case "pin_required":
      case "pin_wrong":
        $("#pin-field").hidden = false;
        $("#pin").value = "";
        return this.fail(err.code === "pin_wrong" ? "That PIN is wrong. Check your invitation and try again." : "This room asks for a PIN.", $("#pin"));
      case "slow_down":
        return this.fail("Too many tries. Wait a little, then try again.");
      case "locked":
        return this.fail("The room is locked. Ask a moderator to open it, then try again.");
      case "full":
        return this.fail("The room is full. Try again when somebody has left.");
      case "busy":
        return this.fail("All places of this server are taken. Try again in a moment.");
      case "not_found":
        return this.fail("There is no room of this name. Check the link.");
    }
    this.fail(err.message || "Joining did not work. Try again.");
  }
}

// fillInputs lists the microphones with the one in use chosen.
export async function fillInputs(select, mic) {
  const { inputs } = await devices();
  const now = mic.track?.getSettings().deviceId;
  const none = mic.track ? [] : [h("option", { value: "", selected: true, disabled: true }, inputs.length ? "None: choose one to speak" : "No microphone was found")];
  select.replaceChildren(...none, ...inputs.map((d, i) => h("option", { value: d.deviceId, selected: d.deviceId === now }, d.label || `Microphone ${i + 1}`)));
}
