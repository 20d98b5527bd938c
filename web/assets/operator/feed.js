// The operator's API: requests with the token, and the live state as
// server-sent events. The token stays in the address's fragment, which no server
// and no log sees, and in this tab's memory.

const BACKOFF_MS = [500, 1000, 2000, 4000];

export class Feed {
  constructor({ token, onstate, onstatus, onrefused }) {
    Object.assign(this, { token, onstate, onstatus, onrefused, tries: 0 });
  }

  get headers() { return { Authorization: "Bearer " + this.token }; }

  // ask sends one request; it fails with the node's words.
  async ask(method, path, body) {
    const text = await this.send(method, path, body);
    return text ? JSON.parse(text) : null;
  }

  // text is what stands at a path that has no JSON.
  text(path) { return this.send("GET", path); }

  async send(method, path, body) {
    let r;
    try {
      r = await fetch("/api/v1/" + path, { method, headers: { ...this.headers, ...(body ? { "Content-Type": "application/json" } : {}) }, body: body && JSON.stringify(body) });
    } catch {
      throw new Error("The node does not answer.");
    }
    const text = await r.text();
    if (r.ok) return text;
    const reply = text ? JSON.parse(text) : null;
    if (r.status === 401) this.onrefused(reply.message);
    throw new Error(reply?.message ?? `The node answered ${r.status}.`);
  }

  // run reads states until the token is refused, and comes back by itself.
  async run() {
    for (;;) {
      try {
        const r = await fetch("/api/v1/live", { headers: this.headers });
        if (r.status === 401 || r.status === 429) return this.onrefused((await r.json()).message);
        if (!r.ok) throw new Error(String(r.status));
        this.onstatus("live");
        await this.read(r.body.pipeThrough(new TextDecoderStream()).getReader());
      } catch { /* told below, tried again */ }
      this.onstatus("lost");
      await new Promise((go) => setTimeout(go, BACKOFF_MS[Math.min(this.tries++, BACKOFF_MS.length - 1)]));
    }
  }

  async read(reader) {
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.tries = 0;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const p of parts) if (p.startsWith("data: ")) this.onstate(JSON.parse(p.slice(6)));
    }
  }
}
