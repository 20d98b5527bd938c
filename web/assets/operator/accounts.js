// The node's accounts, the main one first. A card stays and changes in place.
import { $ } from "../ui.js";
import { Account } from "./account.js";

export class Accounts {
  // env has ask, text, act and confirm.
  constructor(env) { Object.assign(this, { env, cards: new Map() }); }

  // draw takes in the live state; while identity does not answer the last word stands.
  draw(st) {
    const list = st.accounts ?? (st.account ? [st.account] : []);
    if (!list.length && st.missing?.includes("identity.state")) return;
    $("#no-accounts").hidden = list.length > 0;
    const box = $("#accounts");
    const ids = new Set(list.map((a) => a.id));
    for (const [id, card] of this.cards) {
      if (ids.has(id)) continue;
      card.el.remove();
      this.cards.delete(id);
    }
    list.forEach((a, i) => {
      let card = this.cards.get(a.id);
      if (!card) {
        card = new Account(a, i === 0, this.env);
        this.cards.set(a.id, card);
      }
      if (box.children[i] !== card.el) box.insertBefore(card.el, box.children[i] ?? null);
      card.draw(a, i === 0, st.changes?.[a.id]);
    });
  }
}
