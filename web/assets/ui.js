// Small helpers for the DOM that every page uses. Text from others only ever
// becomes text nodes.

export const $ = (sel, root = document) => root.querySelector(sel);

// h makes an element: props starting with "on" are listeners, others attributes;
// true is an empty attribute, false and null none.
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else if (v === true) el.setAttribute(k, "");
    else if (v !== false && v != null) el.setAttribute(k, v);
  }
  el.append(...children.filter((c) => c != null && c !== false));
  return el;
}

const NS = "http://www.w3.org/2000/svg";

// icon makes an <svg> of a symbol of the page's sprite.
export function icon(name) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(NS, "use");
  use.setAttribute("href", "#i-" + name);
  svg.append(use);
  return svg;
}

export function setIcon(button, name) {
  const use = button.querySelector("use");
  if (use && use.getAttribute("href") !== "#i-" + name) use.setAttribute("href", "#i-" + name);
}

// setText changes the text only when it differs, so that screen readers and the
// layout are left alone.
export function setText(el, text) {
  if (el && el.textContent !== text) el.textContent = text;
}

// sentence begins with a capital: the node's words may stand inside a sentence.
export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");

export function toast(text, { urgent = false, ms = 5000 } = {}) {
  const box = $("#toasts");
  const t = h("div", { class: "toast", role: urgent ? "alert" : null }, sentence(text));
  box.append(t);
  while (box.children.length > 3) box.firstElementChild.remove();
  setTimeout(() => t.remove(), ms);
}

// announcer gathers lines for the screen reader and says them at most once in
// two seconds; many at once become a count.
export function announcer(region) {
  let lines = [];
  let timer = 0;
  const say = () => {
    timer = 0;
    if (!lines.length) return;
    region.textContent = lines.length > 4 ? `${lines.length} changes in the room. ${lines.at(-1)}` : lines.join(" ");
    lines = [];
  };
  return (line) => {
    lines.push(line);
    if (lines.length > 200) lines.shift();
    if (!timer) timer = setTimeout(say, 2000);
  };
}

// stored values are a convenience: a browser that refuses storage works without.
export const store = {
  get(key, fallback = "") {
    try { return localStorage.getItem("parley." + key) ?? fallback; } catch { return fallback; }
  },
  set(key, value) {
    try { localStorage.setItem("parley." + key, value); } catch { /* private window */ }
  },
};

export const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// day names the day of a time that is not today's, with a space after it.
export function day(iso) {
  const d = new Date(iso);
  return d.toDateString() === new Date().toDateString() ? "" : `${d.toLocaleDateString([], { day: "numeric", month: "short" })} `;
}

// hue gives a name a steady colour; names that are alike get other ones.
export function hue(text) {
  let n = 0;
  for (const c of text) n = (n * 31 + c.codePointAt(0)) >>> 0;
  return Math.round(n * 137.508) % 360;
}

// copy puts text where it can be pasted, or shows it where a browser refuses.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast(`The browser does not let this page copy. Mark it: ${text}`, { urgent: true, ms: 20000 });
  }
}

export function initials(name) {
  const words = name.trim().split(/\s+/);
  const first = [...(words[0] || "?")][0];
  const last = words.length > 1 ? [...words.at(-1)][0] : "";
  return (first + last).toUpperCase();
}
