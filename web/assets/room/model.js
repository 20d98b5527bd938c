// What is known of the room: a snapshot and the events after it.

const ROLE_ORDER = { moderator: 0, speaker: 1, listener: 2 };
export const RECENT_MS = 8000; // who spoke a moment ago stays near the top

const OWN_MS = 45000; // how long a connection is believed to be what it was
const OTHERS_MS = 15000;

export class Model {
  constructor() {
    this.people = new Map(); // id -> participant, with spoke (ms) added
    this.selfID = "";
    this.room = {};
    this.seq = 0;
    this.unlisted = 0; // of very many the node lists the first
  }

  get self() { return this.people.get(this.selfID); }

  // seat is oneself as last known: it outlives one's own "left", after which self is nobody.
  get seat() { return this.self ?? this.last; }

  // reset takes the answer of join, resume or get.
  reset({ participant, room, seq }) {
    const old = this.people;
    this.people = new Map();
    const put = (p) => {
      const { spoke = 0, quality, measured } = old.get(p.id) ?? {}; // what a snapshot does not tell
      this.people.set(p.id, { quality, measured, ...p, spoke });
    };
    for (const p of room.participants ?? []) put(p);
    if (participant) {
      this.last = undefined;
      this.selfID = participant.id;
      put(participant);
    }
    this.unlisted = Math.max(0, (room.total ?? 0) - this.people.size);
    const { participants, ...settings } = room;
    this.room = settings;
    this.seq = seq ?? 0;
  }

  // apply takes one event: true when it was news, false when it was known
  // already, "gap" when events before it are missing.
  apply(e) {
    if (e.seq) {
      if (e.seq <= this.seq) return false;
      if (this.seq && e.seq > this.seq + 1) return "gap";
      this.seq = e.seq;
    }
    const p = e.participant;
    switch (e.type) {
      case "joined":
      case "changed":
      case "media":
        if (p) this.people.set(p.id, this.renewed(p));
        break;
      case "left":
        if (p && p.id === this.selfID) this.last = this.renewed(p);
        if (p && !this.people.delete(p.id) && this.unlisted) this.unlisted--;
        break;
      case "voice": {
        const known = p && this.people.get(p.id);
        if (known) {
          known.speaking = p.speaking;
          known.spoke = Date.now();
        }
        break;
      }
      case "room":
        if (e.settings) this.room = { ...this.room, ...e.settings };
        break;
      case "quality":
        for (const [id, q] of Object.entries(e.qualities ?? {})) {
          const known = this.people.get(id);
          if (known) Object.assign(known, { quality: q, measured: Date.now() });
        }
        break;
    }
    return true;
  }

  // renewed is a participant as an event tells, with what only the page knows.
  renewed(p) { return { ...this.people.get(p.id), hand: undefined, muted_by: undefined, ...p }; }

  // forget drops figures that were not told again: above 32 participants one gets
  // those of others only while they are bad. True: there were some.
  forget(now = Date.now()) {
    let some = false;
    for (const p of this.people.values()) {
      if (!p.quality || now - (p.measured ?? 0) < (p.id === this.selfID ? OWN_MS : OTHERS_MS)) continue;
      p.quality = undefined;
      some = true;
    }
    return some;
  }

  // ordered lists everybody: oneself, who speaks or just did, raised hands (the
  // longest first), then by role and name.
  ordered(now = Date.now()) {
    const rank = (p) => {
      if (p.id === this.selfID) return 0;
      if (p.speaking || now - (p.spoke ?? 0) < RECENT_MS) return 1;
      if (p.hand) return 2;
      return 3 + (ROLE_ORDER[p.role] ?? 1);
    };
    const rows = [...this.people.values()].map((p) => [rank(p), p]);
    rows.sort(([ra, a], [rb, b]) => ra - rb
      || (ra === 2 ? Date.parse(a.hand) - Date.parse(b.hand) : 0)
      || collate.compare(a.name, b.name) || (a.id < b.id ? -1 : 1));
    return rows.map(([, p]) => p);
  }

  counts() {
    let hands = 0;
    let speaking = 0;
    for (const p of this.people.values()) {
      if (p.hand) hands++;
      if (p.speaking) speaking++;
    }
    return { people: this.people.size + this.unlisted, hands, speaking };
  }
}

const collate = new Intl.Collator(undefined, { sensitivity: "base", numeric: true });
