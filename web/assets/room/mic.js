// The microphone: opening it, its level, and what to say when it does not work.

// micProblem words why getUserMedia failed, and what to do; inside: one is in the
// room already.
export function micProblem(err, inside = false) {
  const text = problem(err);
  return inside ? text.replace(/,? or join to listen only| You can join to listen only\./, "") : text;
}

function problem(err) {
  switch (err?.name) {
    case "NotAllowedError":
      return "The microphone is blocked. Allow it in the address bar’s site settings and try again, or join to listen only.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No microphone was found. Plug one in and try again, or join to listen only.";
    case "NotReadableError":
      return "Another program is using the microphone. Close it and try again, or join to listen only.";
    case "InsecureContext":
      return "Browsers give the microphone only to secure pages. Open this room by https:// or on localhost. You can listen here.";
  }
  return `The microphone could not be opened (${err?.message ?? "unknown error"}). You can join to listen only.`;
}

export const micPossible = () => Boolean(window.isSecureContext && navigator.mediaDevices?.getUserMedia);

export class Mic {
  constructor() {
    this.stream = null;
    this.level = 0; // 0 to 1, about -60 to 0 dB
    this.onended = () => {}; // the device went away
  }

  get track() { return this.stream?.getAudioTracks()[0] ?? null; }

  // open takes a device (empty: the system's choice) and gives up the one before.
  async open(deviceId = "") {
    const enabled = this.track?.enabled ?? true; // who is muted stays it
    if (!micPossible()) throw Object.assign(new Error("insecure"), { name: "InsecureContext" });
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    if (deviceId) audio.deviceId = { exact: deviceId };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (err) {
      if (!deviceId || err.name !== "OverconstrainedError") throw err;
      delete audio.deviceId; // the remembered device is gone
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    }
    this.close();
    this.stream = stream;
    this.track.enabled = enabled;
    const { track } = this;
    track.addEventListener("ended", () => { // not of one that was stopped here
      if (track === this.track) this.onended();
    });
    this.watch();
    return track;
  }

  watch() {
    this.ctx ??= new AudioContext();
    if (this.ctx.state === "suspended") this.ctx.resume().catch(() => {});
    this.source = this.ctx.createMediaStreamSource(this.stream);
    this.analyser = this.ctx.createAnalyser();
    this.analyser.fftSize = 1024;
    this.source.connect(this.analyser);
    this.buffer = new Float32Array(this.analyser.fftSize);
  }

  // read measures the level now; it decays slowly, so that a meter is calm.
  read() {
    if (!this.analyser || !this.track?.enabled) return (this.level = 0);
    this.analyser.getFloatTimeDomainData(this.buffer);
    let sum = 0;
    for (const v of this.buffer) sum += v * v;
    const db = 10 * Math.log10(sum / this.buffer.length + 1e-9);
    const now = Math.min(1, Math.max(0, (db + 60) / 55));
    this.level = Math.max(now, this.level * 0.88);
    return this.level;
  }

  close() {
    this.source?.disconnect();
    this.source = this.analyser = null;
    for (const t of this.stream?.getTracks() ?? []) t.stop();
    this.stream = null;
    this.level = 0;
  }
}

// devices lists the inputs and outputs that the browser names; names come only
// after the microphone was allowed once.
export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return {
    inputs: all.filter((d) => d.kind === "audioinput" && d.deviceId !== "communications"),
    outputs: all.filter((d) => d.kind === "audiooutput" && d.deviceId !== "communications"),
  };
}

// meter draws a level 40 times a second while its element is shown.
export function meter(el, read) {
  const bar = el.firstElementChild;
  let last = -1;
  const draw = () => {
    if (el.isConnected && el.offsetParent !== null) {
      const v = Math.round(read() * 100);
      if (v !== last) bar.style.transform = `scaleX(${v / 100})`;
      last = v;
    }
    requestAnimationFrame(draw);
  };
  requestAnimationFrame(draw);
}
