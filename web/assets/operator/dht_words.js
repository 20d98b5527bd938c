// What the operator's page says of the distributed hash table.

export const familyName = (family) => ({ ipv4: "IPv4", ipv6: "IPv6", all: "Peers" })[family] ?? family;

// size is bytes for a person.
export function size(n) {
  if (n < 1024) return `${Math.round(n)} B`;
  if (n < 1 << 20) return `${(n / 1024).toFixed(n < 10240 ? 1 : 0)} KiB`;
  if (n < 2 ** 30) return `${(n / (1 << 20)).toFixed(n < 10 << 20 ? 1 : 0)} MiB`;
  return `${(n / 2 ** 30).toFixed(1)} GiB`;
}

// perSecond is a rate; null is not known yet.
export const perSecond = (rate) => (rate == null ? "–" : rate > 0 && rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en"));

// health is the badge of an overlay: its colour and its word.
export function health(o) {
  if (o.via) return o.via.proxies.some((p) => p.in_use) ? ["ok", `Proxy in use since ${new Date(o.via.since).toLocaleString("en")}`] : ["bad", "No proxy answers"];
  const sum = (kind) => o.tables.reduce((n, t) => n + t[kind], 0);
  const good = sum("good");
  if (!good && sum("dubious")) return ["warn", "Nobody heard lately"];
  if (!good) return o.bootstrap.length || o.overlay === "opendht" ? ["bad", "Alone"] : ["", "By itself"]; // a network of one is one, too
  return ["ok", `${good} good node${good === 1 ? "" : "s"}`];
}

// tableWords says what a routing table has, and the rest of it in a second line.
export function tableWords(t) {
  if (!t.good && !t.dubious && !t.failed) return ["Nobody", ""];
  const more = [t.incoming ? `${t.incoming} asked this node lately` : "", t.depth ? `depth ${t.depth}` : "", `network of about ${Math.round(t.estimate).toLocaleString("en")}`];
  return [`${t.good} good, ${t.dubious} dubious, ${t.failed} failed`, more.filter(Boolean).join(", ")];
}

// bucketWords is the bar chart for who does not see it.
export const bucketWords = (t) => `Good nodes by shared leading bits: ${t.buckets.map((b, i) => `${i}: ${b.good}`).join(", ")}`;

export const bootstrapWords = (b) => `${b.addr} ${b.answers ? "answers" : "does not answer"}`;

export const proxyWords = (p) => `${p.url} ${p.in_use ? "is in use" : p.answers ? "answers" : "does not answer"}`;

// traffic adds up all kinds; packets tells whether packets are counted at all.
export function traffic(o) {
  const sum = { in: 0, out: 0, in_bytes: 0, out_bytes: 0 };
  for (const t of o.traffic) for (const k of Object.keys(sum)) sum[k] += t[k];
  return { ...sum, packets: o.traffic.some((t) => t.kind !== "stream") };
}

const REASONS = {
  malformed: "not of OpenDHT", rate: "over the limit of questions", unasked: "answers to nothing that was asked", stray: "fragments that nothing waited for", token: "with a wrong token",
  network: "of another network", own: "with this node’s own id", address: "from impossible addresses", full: "for want of room",
};

// dropWords says how many packets were dropped and why.
export function dropWords(o) {
  const some = o.dropped.filter((d) => d.n > 0).sort((a, b) => b.n - a.n);
  if (!some.length) return o.dropped.length ? "No packet was dropped." : "";
  return `Dropped: ${some.map((d) => `${d.n.toLocaleString("en")} ${REASONS[d.name] ?? d.name}`).join(", ")}.`;
}
