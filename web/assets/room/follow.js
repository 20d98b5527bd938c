// Keeps the model in step with the room's events: events that come before their
// snapshot are held, and where some are missing the room is read again, one
// reading at a time and not more than one in SPACE_MS: each costs a message, and
// a flood of them would end the connection.

const SPACE_MS = 1000;
const HELD = 5000; // events; more than these are read again anyway

export class Follow {
  // model takes snapshots and events; happened(event, before) tells of each that
  // was news, before being the participant as it was; read() asks for a snapshot,
  // which comes by reset, and throws where it may be tried again; wait(ms) waits.
  constructor({ model, happened, read, wait = (ms) => new Promise((go) => setTimeout(go, ms)), now = Date.now }) {
    Object.assign(this, { model, happened, read, wait, now, held: [], reading: 0, turn: 0, readAt: -Infinity });
  }

  events(list) { for (const e of list) this.take(e); }

  take(e) {
    if (this.reading) {
      if (this.held.length < HELD) this.held.push(e);
      return;
    }
    const before = e.participant && this.model.people.get(e.participant.id);
    const news = this.model.apply(e);
    if (news === "gap") {
      this.held.push(e);
      this.again();
    } else if (news) this.happened(e, before);
  }

  // reset takes a snapshot: the answer of join, resume or get.
  reset(joined) {
    this.reading = 0;
    this.model.reset(joined);
    const held = this.held;
    this.held = [];
    this.events(held);
  }

  // stop gives up reading: a snapshot comes by another way, or none.
  stop() {
    this.reading = 0;
    this.held = [];
  }

  // again reads the room until a snapshot has come.
  async again() {
    if (this.reading) return;
    const turn = (this.reading = ++this.turn);
    while (this.reading === turn) {
      await this.wait(Math.max(0, this.readAt + SPACE_MS - this.now()));
      if (this.reading !== turn) return; // a snapshot came by another way
      this.readAt = this.now();
      await this.read().catch(() => {});
    }
  }
}
