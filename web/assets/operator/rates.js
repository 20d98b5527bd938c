// Rates from counters that only grow: what changed between two states over the
// time between them.

const STANDS_MS = 3500;

export class Rates {
  constructor() { this.last = new Map(); }

  // of returns the rate a second of a counter, or null at the first look and
  // after the counter began anew.
  of(key, value, now) {
    const before = this.last.get(key);
    if (before && now === before.at) return before.rate;
    // Many counters are told every 2 s: the rate stands until they move.
    if (before && value === before.value && now - before.at < STANDS_MS) return before.rate;
    let rate = null;
    if (before && value >= before.value && now > before.at) rate = ((value - before.value) * 1000) / (now - before.at);
    this.last.set(key, { value, at: now, rate });
    return rate;
  }

  // forget drops counters not looked at for a minute.
  forget(now) {
    for (const [k, v] of this.last) if (now - v.at > 60000) this.last.delete(k);
  }
}

export function bytes(n) {
  if (!n) return "–";
  const mib = n / (1 << 20);
  return mib < 10 ? `${mib.toFixed(1)} MiB` : mib < 1000 ? `${Math.round(mib)} MiB` : `${(mib / 1024).toFixed(1)} GiB`;
}

export function duration(s) {
  if (s == null) return "–";
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
