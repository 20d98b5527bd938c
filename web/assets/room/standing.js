// How one stands with the node, in words.
import { verdict } from "./roster.js";

export const IN_VAIN_MS = 15000; // by then a way for sound is open, or something blocks all
export const AWAY_MS = 30000; // by then a node that was started again answers

// Stretch counts time by looks, about one a second: a machine that slept did not look.
class Stretch {
  constructor() {
    this.ms = 0;
    this.at = null;
  }

  // passed is what went by since the last look.
  passed(now) {
    const ms = this.at === null ? 0 : Math.min(now - this.at, 2000);
    this.at = now;
    return ms;
  }
}

// InVain counts for how long a way for sound has been looked for in vain while the node
// answered: the node's own absence is another story.
export class InVain extends Stretch {
  // see is called with each look. open: the node answers; connected: sound has a way.
  see({ open, connected }, now = Date.now()) {
    const passed = this.passed(now);
    if (connected) this.ms = 0;
    else if (open) this.ms += passed;
  }

  get over() { return this.ms >= IN_VAIN_MS; }
}

// Away counts for how long the node has not answered.
export class Away extends Stretch {
  // see is called with each look and reports whether it is time to say so: once until it answers again.
  see({ open }, now = Date.now()) {
    const passed = this.passed(now), was = this.over;
    this.ms = open ? 0 : this.ms + passed;
    return this.over && !was;
  }

  get over() { return this.ms >= AWAY_MS; }
}

// standing says how it stands, signalling first, then audio: mark is "good", "fair",
// "poor" or "busy". flowing: packets came in a moment ago, which alone shows that there is
// sound while the node's signalling is away.
export function standing({ signalling, audio, flowing, quality, inVain, away }) {
  if (signalling !== "open") {
    if (audio === "connected" && flowing) return { mark: "busy", text: "Reconnecting, sound is on" };
    return away ? { mark: "poor", text: "No answer, trying on" } : { mark: "busy", text: "Reconnecting…" };
  }
  if (audio === "connected") {
    const mark = verdict(quality) || "good";
    return { mark, text: { good: "Connected", fair: "Fair connection", poor: "Poor connection" }[mark] };
  }
  if (inVain) return { mark: "poor", text: "No sound gets through" };
  if (audio === "disconnected" || audio === "failed") return { mark: "busy", text: "Sound is interrupted, reconnecting…" };
  return { mark: "busy", text: "Connecting…" };
}
