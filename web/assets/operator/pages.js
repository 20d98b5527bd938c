// A list that comes in pages, each told by the name that it comes after. It knows
// which page is shown and gives the answers of the newest question alone.

export class Pages {
  // load(query, after) resolves to { total, next } and the list by its name.
  constructor(load, list = "accounts") {
    Object.assign(this, { load, list, query: "", before: [""], asked: 0, shown: null });
  }

  // find begins anew with other words; true when they are others.
  find(query) {
    if (query === this.query) return false;
    this.query = query;
    this.before = [""];
    return true;
  }

  get hasNext() { return Boolean(this.shown?.next); }
  get hasPrevious() { return this.before.length > 1; }

  next() { if (this.hasNext) this.before.push(this.shown.next); }
  previous() { if (this.hasPrevious) this.before.pop(); }

  // read asks for the page; null when another question came meanwhile. A page that
  // has become empty gives way to the one before.
  async read() {
    const mine = ++this.asked;
    for (;;) {
      const page = await this.load(this.query, this.before.at(-1));
      if (mine !== this.asked) return null;
      this.shown = page;
      if (page[this.list].length || !this.hasPrevious) return page;
      this.before.pop();
    }
  }
}

export const many = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

// count says what of how much is shown.
export function count(page, query) {
  const n = page.accounts.length;
  const total = many(page.total, "account");
  if (!page.total) return query ? "Nobody is found." : "No account was handed out yet.";
  return n === page.total ? (query ? `${total} found` : total) : `${n} of ${total}${query ? " found" : ""}`;
}
