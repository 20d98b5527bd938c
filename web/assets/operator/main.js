// The operator's page: the node's state once a second, and what an operator
// does about it.
import { $, h, icon, setText, toast, copy } from "../ui.js";
import { Feed } from "./feed.js";
import { Rates, bytes, duration } from "./rates.js";
import { drawRooms } from "./rooms.js";
import { Accounts } from "./accounts.js";
import { Organisation } from "./organisation.js";
import { DHT } from "./dht.js";
import { plot, spark } from "./spark.js";

const rates = new Rates();
const history = new Map(); // process -> CPU of the last minute
let feed = null;

function begin(token) {
  $("#gate").hidden = true;
  feed = new Feed({ token, onstate: draw, onstatus: showFeed, onrefused: gate });
  feed.run();
}

function gate(why = "") {
  $("#board").hidden = true;
  $("#gate").hidden = false;
  $("#gate-error").hidden = !why;
  setText($("#gate-error"), why);
  $("#token").focus();
}

$("#gate-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const token = $("#token").value.trim();
  if (!token) return;
  window.history.replaceState(null, "", "#" + token);
  begin(token);
});

function showFeed(status) {
  const el = $("#feed");
  el.className = status === "live" ? "badge ok" : "badge warn";
  setText(el.lastElementChild, status === "live" ? "Live" : "Connection lost, trying again…");
}

// act sends a command of a button and says how it went.
async function act(method, path, body, done) {
  try {
    const reply = await feed.ask(method, path, body);
    if (done) toast(done);
    return reply ?? true;
  } catch (err) {
    toast(err.message, { urgent: true });
    return null;
  }
}

function confirm(title, text, yes) {
  setText($("#confirm-title"), title);
  setText($("#confirm-text"), text);
  setText($("#confirm-yes"), yes);
  const d = $("#confirm");
  return new Promise((answer) => {
    // Not on "close": that comes later, when the next question may be asked already.
    const done = (is) => {
      d.close();
      answer(is);
    };
    $("#confirm-yes").onclick = () => done(true);
    $("#confirm-no").onclick = () => done(false);
    d.oncancel = () => answer(false);
    d.showModal();
  });
}

function draw(st) {
  const now = Date.now();
  $("#board").hidden = false;
  const names = { "identity.state": "identity", "node.processes": "the supervisor", "room.list": "conference", "bot.list": "identity (bots)", "dht.stats": "dht" };
  $("#missing").hidden = !st.missing?.length;
  setText($("#missing"), st.missing?.length ? `No answer from ${st.missing.map((m) => names[m] ?? m).join(", ")}. The node restarts what has died by itself.` : "");
  tiles(st, now);
  links(st);
  accounts.draw(st);
  processes(st.processes ?? [], now);
  drawRooms($("#rooms"), st.rooms ?? [], { base: base(st), ask: (...args) => feed.ask(...args), act, confirm, rates, now, calls: st.calls });
  bots(st.bots ?? []);
  dht.draw(st.dht, now);
  organisation.draw(st.organisation);
  rates.forget(now);
  window.parley = { state: st };
}

const accounts = new Accounts({ ask: (...args) => feed.ask(...args), text: (...args) => feed.text(...args), act, confirm });
const dht = new DHT($("#dht"), rates);
const organisation = new Organisation({ ask: (...args) => feed.ask(...args), act, confirm });

const base = (st) => (st.endpoints?.links?.join ? new URL(st.endpoints.links.join).origin : location.origin);

function tiles(st, now) {
  const people = (st.rooms ?? []).flatMap((r) => r.participants ?? []);
  let packetsIn = 0;
  let packetsOut = 0;
  for (const p of people) {
    packetsIn += rates.of(`in ${p.id}`, p.quality?.packets_in ?? 0, now) ?? 0;
    packetsOut += rates.of(`out ${p.id}`, p.quality?.packets_out ?? 0, now) ?? 0;
  }
  let cpu = 0;
  let memory = 0;
  for (const p of st.processes ?? []) {
    cpu += rates.of(`cpu ${p.name} ${p.pid}`, p.cpu_s, now) ?? 0;
    memory += p.rss_bytes;
  }
  const rows = [
    [(st.rooms ?? []).length, "rooms"], [(st.rooms ?? []).reduce((n, r) => n + Math.max(r.total ?? 0, r.participants?.length ?? 0), 0), "participants"], [people.filter((p) => p.speaking).length, "speaking"],
    [Math.round(packetsIn), "packets/s in"], [Math.round(packetsOut), "packets/s out"], [`${(cpu * 100).toFixed(0)} %`, "of a core"], [bytes(memory), "memory"],
  ];
  const box = $("#tiles");
  while (box.children.length < rows.length) box.append(h("div", { class: "card tile" }, h("b"), h("span")));
  rows.forEach(([v, k], i) => {
    setText(box.children[i].firstElementChild, String(v));
    setText(box.children[i].lastElementChild, k);
  });
}

function links(st) {
  const l = st.endpoints?.links ?? {};
  const ways = [["Browser", l.join], ["Others", l.others], ["SIP", l.sip], ["Jami", l.jami]].filter(([, v]) => v);
  const shape = JSON.stringify(ways);
  if ($("#links").dataset.shape === shape) return;
  $("#links").dataset.shape = shape;
  $("#links").replaceChildren(...ways.map(([k, v]) => h("div", { class: "link-row" }, h("span", { class: "muted" }, k),
    v.startsWith("http") ? h("a", { href: v, title: v }, v) : h("code", { title: v }, v),
    h("button", { type: "button", class: "plain", "aria-label": `Copy the ${k} address`, onclick: () => copy(v) }, icon("copy")))));
}

function processes(list, now) {
  const body = $("#processes");
  const seen = new Set();
  for (const p of list) {
    seen.add(p.name);
    let tr = body.querySelector(`tr[data-name="${CSS.escape(p.name)}"]`);
    if (!tr) {
      const badge = h("span", { class: "badge" }, h("span", { class: "dot" }), h("span"));
      tr = h("tr", { "data-name": p.name }, h("td", { class: "name" }, p.name), h("td", {}, badge), ...["n", "n", "n"].map((c) => h("td", { class: c })),
        h("td", {}, spark()), h("td", { class: "n" }), h("td", { class: "n" }));
      body.append(tr);
    }
    const cpu = rates.of(`cpu ${p.name} ${p.pid}`, p.cpu_s, now);
    const past = history.get(p.name) ?? [];
    past.push(cpu ?? 0);
    if (past.length > 60) past.shift();
    history.set(p.name, past);
    plot(tr.querySelector(".spark"), past, 0.05);
    const [, state, pid, up, cpuCell, , rss, restarts] = tr.children;
    const [cls, word] = !p.pid ? ["bad", "Down"] : p.ready ? ["ok", "Ready"] : ["warn", "Starting"];
    state.firstElementChild.className = "badge " + cls;
    setText(state.firstElementChild.lastElementChild, word);
    setText(pid, p.pid ? String(p.pid) : "–");
    setText(up, p.pid ? duration(p.up_s) : "–");
    setText(cpuCell, cpu == null ? "–" : `${(cpu * 100).toFixed(1)} %`);
    setText(rss, bytes(p.rss_bytes));
    setText(restarts, String(p.restarts));
  }
  for (const tr of [...body.children]) if (!seen.has(tr.dataset.name)) tr.remove();
}

function bots(list) {
  const live = list.filter((b) => !b.revoked);
  $("#no-bots").hidden = live.length > 0;
  $("#bots").closest(".table-wrap").hidden = !live.length;
  const shape = JSON.stringify(live);
  if ($("#bots").dataset.shape === shape) return;
  $("#bots").dataset.shape = shape;
  $("#bots").replaceChildren(...live.map((b) => h("tr", {}, h("td", { class: "name" }, b.name), h("td", {}, b.room), h("td", {}, b.rights.join(", ")),
    h("td", {}, new Date(b.created).toLocaleDateString()),
    h("td", {}, h("div", { class: "row-actions" }, h("button", { type: "button", onclick: async () => {
      if (await confirm(`Revoke ${b.name}?`, "It is disconnected at once and its credentials are worth nothing afterwards.", "Revoke")) act("DELETE", `bots/${encodeURIComponent(b.name)}`, null, "Revoked.");
    } }, "Revoke"))))));
}

$("#create").addEventListener("submit", async (e) => {
  e.preventDefault();
  const name = $("#new-room").value.trim().toLowerCase();
  const pin = $("#new-pin").value.trim();
  if (!name) return $("#new-room").focus();
  if (await act("POST", "rooms", { name, ...(pin ? { pin } : {}) }, `Room ${name} is there.`)) e.target.reset();
});

const given = location.hash.slice(1);
if (given) begin(given);
else gate();
