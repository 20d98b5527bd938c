// The audio connection: one RTCPeerConnection with one audio line. The node's
// answer carries its addresses, so nothing is waited for and nothing trickles.

const DISCONNECTED_MS = 2500; // a moment without packets is no reason to act
const RESTARTS = 3; // then the seat is taken anew
const DIRECT_MS = 2000; // a direct way is open by then, or there is none

// Call calls back: onstate(state), onlost() when audio must be negotiated again,
// ondead() when restarts did not help.
export class Call {
  constructor(audio, callbacks) {
    this.audio = audio; // the <audio> element
    this.cb = callbacks;
    this.pc = null;
    this.track = null;
    this.restarts = 0;
    this.relays = { servers: [], until: 0 };
    this.relayed = false; // relays are tried too
  }

  // known takes the relays that the node told of. They are used only when no direct way
  // opens: each costs its server a port for every listener.
  known({ servers = [], seconds = 0 } = {}) {
    this.relays = { servers, until: seconds ? Date.now() + seconds * 1000 : Infinity };
  }

  // stale: relays are to be tried, and their credentials are not good for much longer.
  get stale() { return this.relayed && this.relays.servers.length > 0 && Date.now() > this.relays.until - 60000; }

  get config() {
    return { bundlePolicy: "max-bundle", rtcpMuxPolicy: "require", iceServers: this.relayed ? this.relays.servers : [] };
  }

  get state() { return this.pc?.connectionState ?? "new"; }

  // fresh makes a new connection and returns its offer. track may be null: then
  // one only listens. What the connection before brings is heard until the new one is
  // open: the node may have moved the audio to another of its machines.
  async fresh(track) {
    const before = this.pc?.connectionState === "connected" ? this.pc : null;
    if (before) {
      this.retire();
      this.before = before;
      before.ontrack = before.onconnectionstatechange = null;
      this.pc = null;
      this.older = null;
    } else this.close();
    this.track = track;
    this.origin = "";
    if (this.stale) this.relayed = false; // until the node has told of them anew
    const pc = new RTCPeerConnection(this.config);
    this.pc = pc;
    pc.addTransceiver(track ?? "audio", { direction: track ? "sendrecv" : "recvonly" });
    pc.ontrack = (e) => {
      this.next = e.streams[0] ?? new MediaStream([e.track]);
      if (!this.before) this.play();
    };
    pc.onconnectionstatechange = () => pc === this.pc && this.changed();
    return this.offer();
  }

  // play has the new connection heard in place of the one before.
  play() {
    this.retire();
    if (!this.next) return;
    this.audio.srcObject = this.next;
    this.next = null;
    this.audio.play().catch((err) => this.cb.onblocked?.(err));
  }

  // retire ends the connection before.
  retire() {
    this.before?.close();
    this.before = null;
  }

  async offer(options) {
    const offer = await this.pc.createOffer(options);
    await this.pc.setLocalDescription(offer);
    return this.pc.localDescription.sdp;
  }

  // answer takes the node's answer; true: it comes from another leg than the one
  // before, which knows no keys of this connection and cannot make any (RFC 8842
  // §5.5: a new handshake needs a new fingerprint), so that a fresh one is needed.
  async answer(sdp) {
    const origin = /^o=\S+ (\d+)/m.exec(sdp)?.[1] ?? "";
    const other = Boolean(this.origin && origin !== this.origin);
    this.origin = origin;
    await this.pc.setRemoteDescription({ type: "answer", sdp });
    clearTimeout(this.direct);
    if (this.relays.servers.length && !this.relayed && this.state !== "connected") this.direct = setTimeout(() => this.detour(), DIRECT_MS);
    return other;
  }

  // again offers on the same connection; ice: with new ICE credentials.
  again(ice) {
    if (ice && this.relayed) this.pc.setConfiguration(this.config);
    return this.offer({ iceRestart: ice });
  }

  // detour tries relays, as the direct way does not open.
  detour() {
    if (this.relayed || !this.relays.servers.length || !this.pc || this.state === "connected") return;
    this.relayed = true;
    this.cb.onlost();
  }

  // use changes the microphone; true: the line must be negotiated again.
  async use(track) {
    this.track = track;
    const tr = this.pc?.getTransceivers()[0];
    if (!tr) return false;
    await tr.sender.replaceTrack(track);
    const want = track ? "sendrecv" : "recvonly";
    if (tr.direction === want) return false;
    tr.direction = want;
    return true;
  }

  changed() {
    clearTimeout(this.timer);
    this.cb.onstate(this.state);
    if (this.state === "connected") {
      this.play();
      this.restarts = 0;
      clearTimeout(this.direct);
    } else if (this.state === "disconnected") this.timer = setTimeout(() => this.trouble(), DISCONNECTED_MS);
    else if (this.state === "failed") this.trouble();
  }

  trouble() {
    clearTimeout(this.direct);
    if (this.relays.servers.length) this.relayed = true;
    if (this.restarts++ < RESTARTS) this.cb.onlost();
    else this.cb.ondead();
  }

  // stats sums up what getStats tells, for the page and for tests.
  async stats() {
    const out = { state: this.state, packets_in: 0, packets_out: 0, bytes_in: 0, bytes_out: 0, lost_pct: 0, jitter_ms: 0, rtt_ms: 0, codec: "", relay: "", level_in: 0, energy_in: 0, duration_in: 0 };
    if (!this.pc) return out;
    const report = await this.pc.getStats();
    for (const s of report.values()) {
      if (s.type === "inbound-rtp" && s.kind === "audio") {
        Object.assign(out, { packets_in: s.packetsReceived, bytes_in: s.bytesReceived, lost_in: s.packetsLost, jitter_ms: (s.jitter ?? 0) * 1000,
          level_in: s.audioLevel ?? 0, energy_in: s.totalAudioEnergy ?? 0, duration_in: s.totalSamplesDuration ?? 0,
          concealed: s.concealedSamples ?? 0, samples: s.totalSamplesReceived ?? 0,
          buffer_ms: s.jitterBufferEmittedCount ? (s.jitterBufferDelay / s.jitterBufferEmittedCount) * 1000 : 0 });
        const codec = report.get(s.codecId);
        if (codec) out.codec = codec.mimeType.replace("audio/", "").toLowerCase();
      } else if (s.type === "outbound-rtp" && s.kind === "audio") {
        Object.assign(out, { packets_out: s.packetsSent, bytes_out: s.bytesSent });
      } else if (s.type === "remote-inbound-rtp" && s.kind === "audio") {
        Object.assign(out, { far_lost_pct: (s.fractionLost ?? 0) * 100, rtt_ms: (s.roundTripTime ?? 0) * 1000 });
      } else if (s.type === "transport") {
        const local = report.get(report.get(s.selectedCandidatePairId)?.localCandidateId);
        if (local) out.relay = local.candidateType === "relay" ? local.relayProtocol : "";
      } else if (s.type === "candidate-pair" && s.nominated && s.currentRoundTripTime && !out.rtt_ms) {
        out.rtt_ms = s.currentRoundTripTime * 1000;
      }
    }
    out.lost_pct = this.recentLoss(out);
    return out;
  }

  // recentLoss is the loss, in percent, since a reading 5 to 10 s ago: of all
  // time it would hide a bad minute.
  recentLoss({ packets_in, lost_in = 0 }) {
    const now = Date.now();
    if (!this.older) this.older = this.newer = { at: now, packets_in: 0, lost_in: 0 };
    if (now - this.newer.at > 5000) {
      this.older = this.newer;
      this.newer = { at: now, packets_in, lost_in };
    }
    const lost = lost_in - this.older.lost_in;
    const all = packets_in - this.older.packets_in + lost;
    return all > 0 ? Math.max(0, (100 * lost) / all) : 0;
  }

  close() {
    clearTimeout(this.timer);
    clearTimeout(this.direct);
    this.retire();
    this.next = null;
    if (!this.pc) return;
    this.pc.ontrack = this.pc.onconnectionstatechange = null;
    this.pc.close();
    this.pc = null;
    this.older = null;
  }
}
