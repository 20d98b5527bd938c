// What the operator's page says of accounts, contacts and devices.

// jamiId is the Jami Id in what somebody typed or pasted; "" is none.
export function jamiId(text) {
  const m = /^(?:jami:|ring:)?([0-9a-f]{40})$/i.exec(text.trim());
  return m ? m[1].toLowerCase() : "";
}

// archive says how the account's archive is protected, or who manages the account.
export function archive(a) {
  switch (a.archive) {
    case "plain": return "without a password";
    case "password": return "with a password, which the node has";
    case "locked": return "with a password that the node does not have";
    case "server": return `none here: ${a.server} manages the account`;
  }
  return a.archive || "–";
}

// revocable tells whether identity can open the archive by itself, as a revocation needs.
export const revocable = (a) => a.archive === "plain" || a.archive === "password";

// revokeElsewhere says how a device is revoked that this page can't revoke: words, and a command.
export function revokeElsewhere(a) {
  if (revocable(a)) return null;
  if (a.archive === "server") return { words: `The devices of this account are revoked at its account server, ${a.server}.`, command: "" };
  return {
    words: "The node does not have the archive’s password. This revokes a device for ever:",
    command: `parley account device revoke DEVICE --archive-password-file FILE --account ${a.id}`,
  };
}

// contactState is the badge of a contact: its colour and its word.
export function contactState(c) {
  if (c.active) return c.confirmed ? ["ok", "Active"] : ["warn", "Not confirmed yet"];
  return c.banned ? ["bad", "Blocked"] : ["", "Removed"];
}

// presenceState is the badge of who is online: its colour, its word and since when.
export function presenceState(p) {
  if (!p) return ["", "–", "It is not known."];
  const since = `since ${new Date(p.since * 1000).toLocaleString()}`;
  return p.online ? ["ok", "Online", since] : ["", "Offline", since];
}

// contactActions are the changes that make sense of a contact.
export function contactActions(c) {
  if (c.active) return ["remove", "block"];
  return c.banned ? ["unblock", "add"] : ["add", "block"];
}

// contactCount says what of how much is shown. How many are found is not counted.
export function contactCount(page, query) {
  const n = page.contacts.length;
  const many = (k) => `${k.toLocaleString("en")} contact${k === 1 ? "" : "s"}`;
  if (query) return n ? `${page.next ? "The first " : ""}${many(n)} found` : "Nobody is found.";
  if (!page.total) return "No contacts yet.";
  return n === page.total ? many(n) : `${n} of ${many(page.total)}`;
}

// short is an id for words to a person; the whole one stands beside it.
export const short = (id) => `${id.slice(0, 8)}…`;
