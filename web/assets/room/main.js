// The room page: joins the parts and decides what to do when something is lost.
//
//   signalling lost → Signal reconnects, "resume" finds the seat again; the
//                     audio is not touched
//   seat gone       → join again with a fresh connection
//   audio lost      → ICE restart; three in vain → join again
//   "media" event   → the node's media side began anew: a fresh connection and offer
//   events missing  → the room and the chat are read again
//
// One thing at a time works on the connection (busy); what is asked for meanwhile
// comes after it (next).
import { $, setText, toast, announcer, sentence, copy } from "../ui.js";
import { Signal, Refused } from "./signal.js";
import { Model } from "./model.js";
import { Follow } from "./follow.js";
import { again } from "./again.js";
import { Away, InVain, standing } from "./standing.js";
import { Mic, micProblem } from "./mic.js";
import { Call } from "./call.js";
import { Roster } from "./roster.js";
import { Chat } from "./chat.js";
import { Sheet } from "./sheet.js";
import { Prejoin } from "./prejoin.js";
import { Controls } from "./controls.js";

const roomName = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const announce = announcer($("#live"));

const model = new Model();
const mic = new Mic();
const state = { phase: "prejoin", signalling: "closed", audio: "new", joins: 0, resumes: 0, negotiations: 0, last_error: "" };
let wish = null; // what was asked for when joining: {name, pin, muted, listen}
let session = "";
let signal = null;
let busy = null; // the (re)join or negotiation under way
let next = null; // what was asked for meanwhile: {rejoin, fresh, ice}
const inVain = new InVain();
const away = new Away();
const flow = { packets: 0, on: false }; // what came in by the last reading, and whether it was more than before

const call = new Call($("#audio"), {
  onstate: (s) => {
    state.audio = s;
    showConnection();
  },
  onlost: () => negotiate({ ice: true }),
  ondead: () => rejoin(),
  onblocked: () => { $("#unblock").hidden = false; },
});

const ask = (type, data, ms) => (signal ? signal.request(type, data, ms) : Promise.reject(new Refused({ code: "unavailable", message: "Not connected.", retry: true })));

// act sends a command of a button and says when it was refused; meanwhile is
// said instead where it may yet be done.
async function act(type, data, meanwhile) {
  try {
    return await ask(type, data);
  } catch (err) {
    state.last_error = err.code ?? String(err);
    toast((err.retry && meanwhile) || err.message, { urgent: true });
    return null;
  }
}

const roster = new Roster(model, (id) => sheet.open(id));
const chat = new Chat({ ask, self: () => model.selfID, onnew: chatNew });
const follow = new Follow({ model, happened, read: reread });
const sheet = new Sheet({ model, act, own: () => call.stats() });
const controls = new Controls({ model, mic, call, act, ask, leave, onmic: useMic });
const prejoin = new Prejoin(roomName, mic, Boolean(token), join);

// The page's hook for tests and for the curious.
window.parley = {
  get state() {
    return { ...state, room: model.room.name ?? roomName, self: model.self ?? null, participants: [...model.people.values()], seq: model.seq };
  },
  stats: () => call.stats(),
};

function phase(name) {
  state.phase = name;
  document.body.dataset.phase = name;
  $("#prejoin").hidden = name !== "prejoin";
  $("#room").hidden = name !== "room";
  $("#over").hidden = name !== "over";
}

// join connects and enters; a refusal leaves the page where the reason can be put right.
function join(w) {
  wish = w;
  return new Promise((done) => {
    let settled = false;
    signal?.end();
    session = "";
    signal = new Signal({
      onstate: (s) => {
        state.signalling = s;
        showConnection();
        if (s === "waiting" && state.phase === "prejoin" && !settled) {
          settled = true;
          signal.end();
          prejoin.fail("The node does not answer. Check your network and try again.");
          done();
        }
      },
      onopen: async () => {
        if (settled) return arrive();
        try {
          await occupy(enter);
          settled = true;
          phase("room");
          $("#title").focus();
          announce(`You are in ${model.room.title || roomName}.`);
        } catch (err) {
          settled = true;
          signal.end();
          call.close();
          state.last_error = err.code ?? String(err);
          prejoin.refused(err);
        }
        done();
      },
      onevents: (list) => {
        for (const e of list) {
          follow.take(e);
          if (follow.reading) chat.lost();
          if (e.type === "chat") chat.add(e.chat); // also where events before it are missing
        }
      },
      onresync: () => {
        chat.lost();
        follow.again();
      },
      onbye: farewell,
    });
    signal.connect();
  });
}

// occupy runs what works on the connection; one is under way at a time.
function occupy(task) {
  const run = task().finally(() => {
    if (busy === run) busy = null;
    const how = next;
    next = null;
    if (!how || state.phase === "over") return;
    if (how.rejoin) rejoin();
    else negotiate(how);
  });
  return (busy = run);
}

// enter takes a new seat with a fresh connection.
async function enter() {
  const track = wish.listen ? null : mic.track;
  if (track) track.enabled = !wish.muted;
  const offer = await call.fresh(track);
  const joined = await ask("join", { room: roomName, name: wish.name, pin: wish.pin || undefined, token: token || undefined, offer, muted: Boolean(wish.muted || !track) }, 20000);
  state.joins++;
  next = null; // it was about the seat before
  arrived(joined);
  if (joined.sdp) await call.answer(joined.sdp);
}

// arrived takes a snapshot of the room; messages may have been missed before it.
function arrived(joined) {
  session = joined.session;
  call.known(joined.relays);
  follow.reset(joined);
  signal.settled();
  refresh();
  controls.settle();
  chat.load();
}

// arrive is after a reconnection: resume the seat, or take a new one.
async function arrive() {
  chat.lost();
  if (!session) return rejoin();
  try {
    arrived(await ask("resume", { session }));
    state.resumes++;
    if (call.state === "failed" || call.state === "closed" || call.state === "new") negotiate({ fresh: true });
  } catch (err) {
    if (err.code === "gone" || err.code === "bad_request") {
      session = "";
      return rejoin();
    }
    signal.drop(); // come back with back-off
  }
}

// rejoin takes a new seat; what is refused for good ends the stay.
function rejoin() {
  if (busy) {
    next = { rejoin: true };
    return;
  }
  occupy(async () => {
    try {
      if (!signal.open) return; // arrive follows
      const was = again(model.seat, controls.want);
      if (was) wish.muted = was.muted;
      if (session) {
        await ask("leave").catch(() => {}); // ends the connection too; arrive follows
        session = "";
        signal.drop();
        return;
      }
      chat.lost();
      await enter();
      announce("You are back in the room.");
      if (was?.moderated) toast("You are back in the room, muted: a moderator had muted you before the connection was lost.", { urgent: true, ms: 12000 });
    } catch (err) {
      if (state.phase !== "room") return;
      state.last_error = err.code ?? String(err);
      if (err.retry || !(err instanceof Refused)) signal.drop();
      else over("You are not in the room any more", err.message);
    }
  });
}

// negotiate offers again: with new ICE credentials, on a fresh connection, or
// just because the microphone came or went.
function negotiate(how = {}) {
  if (busy) {
    next = { ...next, ice: next?.ice || how.ice, fresh: next?.fresh || how.fresh };
    return busy;
  }
  return occupy(async () => {
    try {
      state.negotiations++;
      if (call.stale) call.known(await ask("relays"));
      const fresh = how.fresh || !call.pc;
      const sdp = fresh ? await call.fresh(call.track) : await call.again(how.ice);
      const answer = await ask("negotiate", { sdp });
      if (answer.sdp && (await call.answer(answer.sdp))) next = { ...next, fresh: true };
    } catch (err) {
      if (state.phase !== "room") return;
      state.last_error = err.code ?? String(err);
      if (err.code === "gone" || err.code === "not_found") {
        next = { rejoin: true };
        return;
      }
      const again = how.ice ? { fresh: true } : how;
      setTimeout(() => {
        if (state.phase === "room" && !(how.ice && call.state === "connected")) negotiate(again);
      }, 1500);
    }
  });
}

async function useMic(track) {
  wish.listen = !track;
  if (await call.use(track)) await negotiate();
}

// reread asks for a snapshot after events were lost. It throws where that is to be
// tried again.
async function reread() {
  if (!signal?.open) {
    follow.stop(); // resume brings one
    return;
  }
  try {
    arrived(await ask("get"));
  } catch (err) {
    if (err.code !== "gone") throw err;
    follow.stop();
    signal.drop(); // this connection counts as in the room; arrive follows
  }
}

// happened tells of one event of the room.
function happened(e, before) {
  const p = e.participant;
  const self = p && p.id === model.selfID;
  switch (e.type) {
    case "joined":
      if (!self) announce(`${p.name} joined.`);
      break;
    case "left":
      if (!self && before) announce(`${before.name} left.`);
      break;
    case "media":
      if (self) negotiate({ fresh: true });
      break;
    case "changed":
      if (self && before) ownChange(before, p, e.by);
      else if (before && !before.hand && p.hand) announce(`${p.name} raised a hand.`);
      break;
  }
  if (e.type === "quality" || e.type === "voice") {
    roster.update(e.type === "voice");
    showConnection();
  } else refresh();
}

function ownChange(before, now, by) {
  const other = by && by !== model.selfID;
  if (other && now.muted && !before.muted) toast("A moderator has muted you. Raise your hand to be unmuted.");
  if (other && !now.muted && before.muted) toast(controls.want ? "A moderator lets you speak. You are still muted here." : "A moderator has unmuted you: the others hear you now.");
  if (now.role !== before.role) toast(now.role === "listener" ? "You are a listener now." : now.role === "moderator" ? "You are a moderator now." : "You may speak now.");
}

function chatNew(list) {
  if (list.length === 1) announce(`${list[0].name}: ${list[0].body.slice(0, 200)}`);
  else announce(`${list.length} new messages.`);
  controls.unread(list.length);
}

// farewell is the node's last word on this connection.
function farewell(f) {
  if (f.retry) return; // the connection closes, Signal comes back, arrive decides
  const title = { kicked: "You were removed from the room", removed: "The room was closed", replaced: "This seat was opened in another window", left: "You have left" };
  if (state.phase === "room") over(title[f.reason] ?? "You are not in the room any more", f.message);
}

function over(title, text) {
  signal?.end();
  follow.stop();
  chat.end();
  call.close();
  mic.close();
  setText($("#over-title"), title);
  setText($("#over-text"), text ? sentence(text) + "." : "");
  for (const d of document.querySelectorAll("dialog[open]")) d.close();
  phase("over");
  $("#over-title").focus();
}

// leave does not wait for the node: what was sent goes out before the connection ends.
function leave() {
  if (signal?.open) ask("leave").catch(() => {});
  over("You have left", "you can close this window or come back");
}

$("#invite").addEventListener("click", () => copy(location.origin + location.pathname)); // without a moderator's token
$("#over-again").addEventListener("click", () => location.reload());
$("#unblock").addEventListener("click", () => {
  $("#audio").play().then(() => { $("#unblock").hidden = true; }).catch((err) => toast(`The sound stays off: ${err.message}`, { urgent: true }));
});
addEventListener("pagehide", () => {
  // Best effort: without it the seat is given up when the audio stays away.
  if (state.phase === "room" && signal?.open) signal.ws.send(JSON.stringify({ id: 0, type: "leave" }));
});
$("#connection").addEventListener("click", () => sheet.open(model.selfID));

function refresh() {
  const { people, hands } = model.counts();
  setText($("#title"), model.room.title || model.room.name || roomName);
  setText($("#count"), String(people));
  setText($("#tab-count"), String(people));
  $("#alone").hidden = people > 1;
  $("#hands").hidden = !hands;
  setText($("#hands"), hands === 1 ? "1 hand raised" : `${hands} hands raised`);
  $("#locked").hidden = !model.room.locked;
  controls.update();
  roster.update(true);
  showConnection();
}

// showConnection says in a word how it stands, and at length when no sound gets through.
function showConnection() {
  const el = $("#connection");
  const { text, mark } = standing({ signalling: state.signalling, audio: call.state, flowing: flow.on, quality: model.self?.quality, inVain: inVain.over, away: away.over });
  $("#nosound").hidden = !inVain.over;
  if (el.dataset.state !== mark) el.dataset.state = mark;
  if ($("#connection-text").textContent !== text) {
    setText($("#connection-text"), text);
    if (state.phase === "room" && text !== "Connecting…") announce(text + ".");
  }
  document.body.dataset.audio = call.state;
  document.body.dataset.signalling = state.signalling;
}

if (navigator.mediaDevices) navigator.mediaDevices.addEventListener?.("devicechange", () => (state.phase === "room" ? controls.fill() : prejoin.fill()));
controls.onproblem = (err) => toast(micProblem(err, true), { urgent: true, ms: 9000 });
mic.onended = () => (state.phase === "room" ? controls.micLost() : prejoin.micLost());
setInterval(() => {
  if (state.phase === "room" && model.forget()) {
    roster.update();
    showConnection();
  }
}, 5000);
setInterval(async () => {
  if (state.phase !== "room") return;
  inVain.see({ open: state.signalling === "open", connected: call.state === "connected" });
  if (away.see({ open: state.signalling === "open" })) toast("The server has not answered for half a minute. This page tries on; if it stays so, ask whoever invited you for another link.", { urgent: true, ms: 60000 });
  if (state.signalling !== "open" && call.state === "connected") {
    const { packets_in } = await call.stats();
    Object.assign(flow, { packets: packets_in, on: flow.packets > 0 && packets_in > flow.packets });
  } else Object.assign(flow, { packets: 0, on: false });
  showConnection();
}, 1000);
phase("prejoin");
prejoin.start();
