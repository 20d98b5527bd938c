// One's own messages until the node has them on disk: sent one after another, so
// that their order stays, and again under the same key until that is answered.

const AGAIN_MS = 2000;

export class Outbox {
  // send({body, key}) sends a message; self() is one's participant id; catchUp()
  // reads what was missed; onstored(entry, message), onwaiting() and onrefused(entry,
  // error) tell how it went.
  constructor({ send, self, catchUp, onstored, onwaiting, onrefused, later = (fn, ms) => setTimeout(fn, ms) }) {
    Object.assign(this, { send, self, catchUp, onstored, onwaiting, onrefused, later, waiting: [], stored: new Set(), running: false, timer: 0, ended: false });
  }

  add(entry) {
    this.waiting.push({ ...entry, tried: new Set() });
    this.again();
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
  }

  // again sends what waits; it is called whenever the node may be back.
  async again() {
    if (this.running || this.ended) return;
    this.running = true;
    clearTimeout(this.timer);
    try {
      while (this.waiting.length && !this.ended) await this.first(this.waiting[0]);
    } catch {
      this.onwaiting();
      this.timer = this.later(() => this.again(), AGAIN_MS);
    } finally {
      this.running = false;
    }
  }

  // first sends the first that waits; it throws when that is to be tried again.
  async first(w) {
    // The key counts for one seat: who has another one by now looks first whether
    // the message was stored.
    if ([...w.tried].some((id) => id !== this.self())) {
      await this.catchUp();
      if (!this.waiting.includes(w)) return;
      w.tried.clear();
    }
    w.tried.add(this.self());
    let m;
    try {
      m = await this.send({ body: w.body, key: w.key });
    } catch (err) {
      if (!this.waiting.includes(w)) return; // its event came
      if (err.retry) throw err;
      this.take(w);
      this.onrefused(w, err);
      return;
    }
    if (this.waiting.includes(w)) this.done(w, m);
  }

  // seen looks at a message of the room: it may be one that waits for its answer.
  seen(m) {
    if (this.stored.has(m.id)) return;
    const w = this.waiting.find((k) => k.tried.has(m.from) && k.body === m.body);
    if (w) this.done(w, m);
  }

  done(w, m) {
    this.stored.add(m.id);
    this.take(w);
    this.onstored(w, m);
  }

  take(w) { this.waiting = this.waiting.filter((k) => k !== w); }
}
