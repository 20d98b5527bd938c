// What is known of the room: a snapshot and the events after it.

const ROLE_ORDER = { moderator: 0, speaker: 1, listener: 2 };
export const RECENT_MS = 8000; // who spoke a moment ago stays near the top

export class Model {
  constructor() {
    this.people = new Map(); // id -> participant, with spoke (ms) added
    this.selfID = "";
    this.room = {};
    this.seq = 0;
  }

  get self() { return this.people.get(this.selfID); }

  // reset takes the answer of join, resume or get.
  reset({ participant, room, seq }) {
    const old = this.people;
    this.people = new Map();
    for (const p of room.participants ?? []) this.people.set(p.id, { ...p, spoke: old.get(p.id)?.spoke ?? 0 });
    if (participant) {
      this.selfID = participant.id;
      this.people.set(participant.id, { ...this.people.get(participant.id), ...participant, spoke: old.get(participant.id)?.spoke ?? 0 });
    }
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
        if (p) this.people.set(p.id, { ...this.people.get(p.id), hand: undefined, muted_by: undefined, ...p });
        break;
      case "left":
        if (p) this.people.delete(p.id);
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
          if (known) known.quality = q;
        }
        break;
    }
    return true;
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
    return { people: this.people.size, hands, speaking };
  }
}

const collate = new Intl.Collator(undefined, { sensitivity: "base", numeric: true });
