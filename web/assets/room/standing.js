// How one stands with the node, in words.
import { verdict } from "./roster.js";

export const IN_VAIN_MS = 15000; // by then a way for sound is open, or something blocks all

// InVain counts for how long a way for sound has been looked for in vain while the node
// answered: the node's own absence is another story.
export class InVain {
  constructor() {
    this.ms = 0;
    this.at = null;
  }

  // see is called about once a second. open: the node answers; connected: sound has a way.
  see({ open, connected }, now = Date.now()) {
    const since = this.at === null ? 0 : Math.min(now - this.at, 2000); // a machine that slept did not look
    this.at = now;
    if (connected) this.ms = 0;
    else if (open) this.ms += since;
  }

  get over() { return this.ms >= IN_VAIN_MS; }
}

// standing says how it stands, signalling first, then audio: mark is "good", "fair",
// "poor" or "busy". flowing: packets came in a moment ago, which alone shows that there is
// sound while the node's signalling is away.
export function standing({ signalling, audio, flowing, quality, inVain }) {
  if (signalling !== "open") return { mark: "busy", text: audio === "connected" && flowing ? "Reconnecting, sound is on" : "Reconnecting…" };
  if (audio === "connected") {
    const mark = verdict(quality) || "good";
    return { mark, text: { good: "Connected", fair: "Fair connection", poor: "Poor connection" }[mark] };
  }
  if (inVain) return { mark: "poor", text: "No sound gets through" };
  if (audio === "disconnected" || audio === "failed") return { mark: "busy", text: "Sound is interrupted, reconnecting…" };
  return { mark: "busy", text: "Connecting…" };
}
