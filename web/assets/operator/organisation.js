// The accounts that an account server on this machine has handed out. The section
// shows while there is one; should it end meanwhile, it says so.
import { $, h, sentence, setText } from "../ui.js";
import { Pages, count, many } from "./pages.js";

const SEARCH_MS = 250;

export class Organisation {
  // ask sends a request of the operator's and fails with words; act does the same
  // and tells them; confirm asks the operator.
  constructor({ ask, act, confirm }) {
    Object.assign(this, { ask, act, confirm, changes: null, timer: 0, broken: false });
    this.pages = new Pages((query, after) => ask("GET", `organisation/accounts?${new URLSearchParams({ query, after })}`));
    this.table = $("#org-table");
    $("#org-search").addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.find(), SEARCH_MS);
    });
    $("#org-form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.find();
    });
    $("#org-next").addEventListener("click", () => this.turn("next"));
    $("#org-previous").addEventListener("click", () => this.turn("previous"));
  }

  // draw takes in what the live state says: nothing where there is no server.
  draw(state) {
    const box = $("#organisation");
    if (!state && box.hidden) return;
    box.hidden = false;
    if (!state || state.error) {
      this.changes = null; // read anew when it is back
      this.problem(state ? state.error : "The account server has ended");
      return;
    }
    if (state.changes === this.changes) return;
    this.changes = state.changes;
    setText($("#org-sum"), `${many(state.accounts, "account")}, ${many(state.devices, "device")}, without the revoked`);
    this.list();
  }

  problem(words) {
    this.broken = Boolean(words);
    $("#org-error").hidden = !words;
    setText($("#org-error"), words ? sentence(words) + ". Below stands what it said last." : "");
    for (const b of $("#organisation").querySelectorAll("button")) b.disabled = this.broken;
    if (!this.broken) this.pager();
  }

  pager() {
    $("#org-next").disabled = !this.pages.hasNext;
    $("#org-previous").disabled = !this.pages.hasPrevious;
    $("#org-pager").hidden = !this.pages.hasNext && !this.pages.hasPrevious;
  }

  find() {
    clearTimeout(this.timer);
    if (this.pages.find($("#org-search").value.trim())) this.list();
  }

  async turn(way) {
    this.pages[way]();
    await this.list();
    $("#org-title").focus(); // the button may be of no use any more
  }

  async list() {
    let page;
    try {
      page = await this.pages.read();
    } catch (err) {
      this.changes = null;
      this.problem(err.message);
      return;
    }
    if (!page) return;
    const focused = this.table.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    for (const body of this.table.querySelectorAll("tbody")) body.remove();
    this.table.append(...page.accounts.map((a) => this.account(a)));
    this.table.closest(".table-wrap").hidden = !page.accounts.length;
    setText($("#org-count"), count(page, this.pages.query));
    this.problem("");
    if (focused != null) (this.table.querySelector(`[data-key="${CSS.escape(focused)}"]`) ?? $("#org-title")).focus();
  }

  // account is a group of rows: the account and below it its devices.
  account(a) {
    const path = `organisation/accounts/${encodeURIComponent(a.name)}`;
    const note = [a.displayName, a.email].filter(Boolean).join(", ");
    const live = a.devices.filter((d) => !d.revoked).length;
    const row = h("tr", { class: "group" },
      h("th", { scope: "rowgroup", class: "name", title: note ? `${a.name}, ${note}` : a.name }, a.name, h("span", { class: "note" }, note)),
      ...this.cells(a.id, a, async () => {
        const lost = live === 1 ? "its device" : live ? `its ${live} devices` : "";
        if (await this.confirm(`Revoke the account of ${a.name}?`, `${a.displayName || a.name} loses the account${lost ? " and " + lost : ""} for good: nobody can log in to it again, and it can’t be given back.`, "Revoke account"))
          this.act("DELETE", path, null, `The account of ${a.name} is revoked.`);
      }, `the account of ${a.name}`));
    const devices = a.devices.map((d) => h("tr", { class: "device" },
      h("th", { scope: "row", class: "name", title: d.alias }, d.alias || "no name"),
      ...this.cells(d.deviceId, { ...d, ended: a.revoked }, async () => {
        if (await this.confirm(`Revoke ${d.alias || "this device"} of ${a.name}?`, "The device can’t log in any more, for good. The account and its other devices stay.", "Revoke device"))
          this.act("DELETE", `${path}/devices/${d.deviceId}`, null, `${d.alias || "The device"} of ${a.name} is revoked.`);
      }, `${d.alias || d.deviceId} of ${a.name}`)));
    const more = a.moreDevices ? h("tr", { class: "device" }, h("td", { colspan: "5", class: "muted" }, `and ${a.moreDevices} more that are revoked`)) : null;
    return h("tbody", { "data-account": a.name }, row, ...devices, ...(more ? [more] : []));
  }

  // cells are what accounts and devices have in common: id, day, state, button.
  cells(id, x, revoke, what) {
    const day = (at) => new Date(at).toLocaleDateString();
    return [
      h("td", { class: "id mono", title: id }, id),
      h("td", {}, day(x.created)),
      h("td", {}, x.revoked ? h("span", { class: "badge bad" }, `Revoked ${day(x.revoked)}`) : x.ended ? h("span", { class: "badge" }, "Account revoked") : h("span", { class: "badge ok" }, "Valid")),
      h("td", {}, x.revoked || x.ended ? null : h("div", { class: "row-actions" },
        h("button", { type: "button", "data-key": id, "aria-label": `Revoke ${what}`, onclick: revoke }, "Revoke"))),
    ];
  }
}
