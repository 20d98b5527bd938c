// The messages of the chat in their order, without holes.

const KEEP = 400; // messages in the page

export class Log {
  // insert(index, message) and remove(index) show what changes.
  constructor({ insert, remove }) {
    Object.assign(this, { insert, remove, list: [], ids: new Set(), holes: 0, solid: null });
  }

  get oldest() { return this.list[0]?.id ?? ""; }
  has(id) { return this.ids.has(id); }

  // add puts one message into its place by time; false: it is known.
  add(m) {
    if (!m?.id || this.ids.has(m.id)) return false;
    let i = this.list.length;
    while (i > 0 && Date.parse(this.list[i - 1].time) > Date.parse(m.time)) i--;
    this.put(i, m);
    if (this.list.length > KEEP) this.drop(this.list.length - KEEP);
    return true;
  }

  // hole says that messages may be missing from here on: fill looks for them.
  hole() {
    this.holes++;
    this.solid ??= new Set(this.ids);
  }

  // page puts in a part of the history, oldest first and without holes, that ends
  // before a known message or is the newest. It returns what was new.
  page(messages, before = "") {
    const fresh = [];
    let at = before ? this.list.findIndex((m) => m.id === before) : -1;
    for (const m of [...messages].reverse()) {
      if (this.ids.has(m.id)) {
        at = this.list.findIndex((k) => k.id === m.id);
        continue;
      }
      if (at < 0) {
        at = this.list.length;
        while (at > 0 && Date.parse(this.list[at - 1].time) > Date.parse(m.time)) at--;
      }
      this.put(at, m);
      fresh.unshift(m);
    }
    return fresh;
  }

  put(i, m) {
    this.ids.add(m.id);
    this.list.splice(i, 0, m);
    this.insert(i, m);
  }

  // drop forgets the oldest n; they can be read again.
  drop(n) {
    for (; n > 0; n--) {
      this.ids.delete(this.list.shift().id);
      this.remove(0);
    }
  }

  // dropBefore forgets what is older than a message: a hole is between them that
  // is too long to be filled.
  dropBefore(id) { this.drop(Math.max(0, this.list.findIndex((m) => m.id === id))); }
}

// fill reads the newest messages, and back from there until one is met that was
// known before the hole; read(before) gives one page. It returns what was missed,
// and whether there is more before the oldest.
export async function fill(log, read, pages = 6) {
  const { holes } = log;
  const solid = log.solid ?? new Set(log.ids);
  const missed = [];
  let more = false;
  let before = "";
  for (let n = 0; ; n++) {
    const page = await read(before);
    const list = page.messages ?? [];
    missed.unshift(...log.page(list, before));
    more = Boolean(page.more);
    const met = !solid.size || list.some((m) => solid.has(m.id));
    if (met && solid.size) more = null; // as it was
    if (met || !more || !list.length) break;
    before = list[0].id;
    if (n + 1 === pages) { // the hole is too long: what is before it can be read again
      log.dropBefore(before);
      break;
    }
  }
  if (holes === log.holes) log.solid = null;
  return { missed: solid.size ? missed : [], more };
}
