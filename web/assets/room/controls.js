// The bar at the bottom, its keys, the views of a phone, and the sound dialog.
import { $, h, setIcon, setText, store, toast } from "../ui.js";
import { devices, meter } from "./mic.js";
import { fillInputs } from "./prejoin.js";

const HOLD_MS = 300; // Space held longer than this was to speak only meanwhile

export class Controls {
  constructor({ model, mic, call, act, ask, leave, onmic }) {
    Object.assign(this, { model, mic, call, act, ask, onmic, unreadCount: 0, want: null });
    this.onproblem = () => {};
    $("#mute").addEventListener("click", () => this.toggleMute());
    $("#hand").addEventListener("click", () => this.toggleHand());
    $("#leave").addEventListener("click", leave);
    $("#lock").addEventListener("click", () => act("lock", { locked: !model.room.locked }));
    $("#settings").addEventListener("click", () => this.openSound());
    $("#sound .close").addEventListener("click", () => $("#sound").close());
    $("#sound").addEventListener("click", (e) => {
      if (e.target === $("#sound")) $("#sound").close();
    });
    $("#mic-in").addEventListener("change", (e) => this.chooseMic(e.target.value));
    $("#out").addEventListener("change", (e) => this.chooseOut(e.target.value));
    $("#volume").addEventListener("input", (e) => {
      $("#audio").volume = e.target.value / 100;
      store.set("volume", e.target.value);
    });
    $("#volume").value = store.get("volume", "100");
    $("#audio").volume = $("#volume").value / 100;
    for (const v of ["people", "chat"]) $(`#tab-${v}`).addEventListener("click", () => this.view(v));
    this.view("people");
    meter($("#own-meter"), () => mic.read());
    addEventListener("keydown", (e) => this.key(e, true));
    addEventListener("keyup", (e) => this.key(e, false));
  }

  get listener() { return this.model.seat?.role === "listener"; }
  // want is a mute that the node does not know yet: it counts here at once.
  get muted() { return this.want ?? this.model.seat?.muted ?? true; }

  // update shows one's own state.
  update() {
    const me = this.model.seat;
    if (!me) return;
    const silent = this.muted || this.listener;
    if (this.mic.track) this.mic.track.enabled = !silent;
    const button = $("#mute");
    button.classList.toggle("on", silent);
    setIcon(button, silent ? "mic-off" : "mic");
    setText(button.querySelector(".text"), this.listener ? "Listening" : this.muted ? "Unmute" : "Mute");
    button.disabled = this.listener;
    button.title = this.listener ? "You are a listener. Raise your hand to ask to speak." : "M, or hold Space";
    $("#hand").classList.toggle("on", Boolean(me.hand));
    setText($("#hand .text"), me.hand ? "Lower hand" : "Raise hand");
    const lock = $("#lock");
    lock.hidden = me.role !== "moderator";
    setIcon(lock, this.model.room.locked ? "unlock" : "lock");
    setText(lock.querySelector("span"), this.model.room.locked ? "Unlock" : "Lock");
    lock.setAttribute("aria-label", this.model.room.locked ? "Unlock the room" : "Lock the room");
  }

  async toggleMute() {
    if (this.listener) return;
    await this.mute(!this.muted);
  }

  // mute tells the node; the track is cut at once, and opened when the node agreed.
  async mute(muted) {
    if (!muted && !this.mic.track) {
      try {
        await this.onmic(await this.mic.open(store.get("mic")));
      } catch (err) {
        this.onproblem(err);
        return;
      }
    }
    this.want = muted ? true : null;
    this.update();
    this.told(await this.act("mute", { muted }, muted ? "You are muted here; the others see it when the node answers again." : ""));
    if (this.want) this.timer = setTimeout(() => this.settle(), 3000);
  }

  told(p) {
    if (p) this.want = null;
    if (p && p.id === this.model.self?.id) Object.assign(this.model.self, { muted: p.muted, muted_by: p.muted_by });
    this.update();
  }

  // settle tells the node of a mute that it missed, until it knows.
  async settle() {
    clearTimeout(this.timer);
    if (this.want === null || $("#room").hidden) return;
    const me = this.model.self;
    if (me?.muted && !me.muted_by) return this.told({}); // a moderator's may be lifted
    try {
      this.told(await this.ask("mute", { muted: true }));
    } catch {
      this.timer = setTimeout(() => this.settle(), 3000);
    }
  }

  // micLost goes on with another microphone, or muted without one.
  async micLost() {
    try {
      await this.onmic(await this.mic.open());
      this.update();
      toast(`Your microphone was disconnected. Now in use: ${this.mic.track.label || "another one"}.`, { urgent: true, ms: 9000 });
      if ($("#sound").open) this.fill();
      return;
    } catch { /* there is no other */ }
    this.mic.close();
    await this.onmic(null);
    toast("Your microphone was disconnected. You are muted; plug one in and press Unmute.", { urgent: true, ms: 12000 });
    if (!this.muted) await this.mute(true);
    this.update();
  }

  async toggleHand() {
    const p = await this.act("hand", { raised: !this.model.self?.hand });
    if (p && p.id === this.model.self?.id) this.model.self.hand = p.hand;
    this.update();
  }

  key(e, down) {
    if ($("#room").hidden || e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
    if (e.target.closest("input, textarea, select, [contenteditable]")) return;
    if (e.key === " ") {
      if (e.target.closest("button, a")) return; // Space presses what has the focus
      e.preventDefault();
      if (down && !e.repeat) {
        this.spaceAt = Date.now();
        this.spaceOpened = this.muted;
        this.toggleMute();
      } else if (!down && this.spaceOpened && Date.now() - this.spaceAt > HOLD_MS) {
        this.spaceOpened = false;
        if (!this.listener) this.mute(true);
      }
    } else if (down && !e.repeat && e.key.toLowerCase() === "m") this.toggleMute();
    else if (down && !e.repeat && e.key.toLowerCase() === "h") this.toggleHand();
  }

  view(name) {
    $("#room").dataset.view = name;
    for (const v of ["people", "chat"]) $(`#tab-${v}`).setAttribute("aria-pressed", String(v === name));
    if (name === "chat") this.unread(-this.unreadCount);
  }

  unread(n) {
    const seen = $("#room").dataset.view === "chat" || getComputedStyle($(".tabs")).display === "none";
    this.unreadCount = seen ? 0 : this.unreadCount + n;
    $("#unread").hidden = this.unreadCount <= 0;
    setText($("#unread"), String(this.unreadCount));
  }

  async openSound() {
    await this.fill();
    $("#sound").showModal();
  }

  async fill() {
    await fillInputs($("#mic-in"), this.mic);
    const { outputs } = await devices();
    const can = "setSinkId" in HTMLMediaElement.prototype && outputs.length > 0;
    $("#out-field").hidden = !can;
    const now = $("#audio").sinkId || "default";
    if (can) $("#out").replaceChildren(...outputs.map((d, i) => h("option", { value: d.deviceId, selected: d.deviceId === now }, d.label || `Speaker ${i + 1}`)));
  }

  async chooseMic(id) {
    store.set("mic", id);
    try {
      await this.onmic(await this.mic.open(id));
      this.update();
    } catch (err) {
      this.onproblem(err);
    }
  }

  async chooseOut(id) {
    try {
      await $("#audio").setSinkId(id);
    } catch (err) {
      toast(`That speaker cannot be used: ${err.message}`, { urgent: true });
    }
  }
}
