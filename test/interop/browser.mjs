// Drives one Chromium, told what to do by JSON lines on standard input; each is
// answered by one JSON line. Used by the interop tests, see browser_test.go.
//
//   node browser.mjs MICROPHONE.wav
//   {"do":"open","url":…,"name":…,"pin":…}   join a room by its link
//   {"do":"visit","url":…}                   open any page
//   {"do":"hear","ms":N}                     waits for N ms more to be played: base64, s16le, mono, 48 kHz
//   {"do":"last","ms":N}                     the last N ms that were played, or silence
//   {"do":"played"}                          what the last peer connection played so far, see played below
//   {"do":"eval","js":…}                     evaluate in the page
//   {"do":"look","width":…,"height":…,"dark":…}  size of the window, colour scheme
//   {"do":"press","key":…}                   a key of the keyboard
//   {"do":"click","testid":…} {"do":"shot","path":…} {"do":"close"}
import { chromium } from 'playwright-core';
import { createInterface } from 'node:readline';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const profile = mkdtempSync(join(tmpdir(), 'parley-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  headless: true,
  ignoreHTTPSErrors: true,
  permissions: ['microphone'],
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
    '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', `--use-file-for-fake-audio-capture=${process.argv[2]}`],
});
context.on('close', () => process.stderr.write('the browser has ended\n'));
const page = context.pages()[0] ?? await context.newPage();
page.on('console', m => process.stderr.write(`page: ${m.text()}\n`));
page.on('crash', () => process.stderr.write('the page has crashed\n'));
page.on('pageerror', e => process.stderr.write(`page error: ${e}\n`));

// The microphone is a steady tone, which a browser's noise suppression takes
// for noise; what is heard is recorded from each remote track.
await page.addInitScript(() => {
  window.__heard = [];
  window.__pcs = [];
  window.__count = 0; // samples ever
  const keep = 48000 * 60;
  let total = 0;
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      window.__pcs.push(this);
      // A source of a track that is not played yet stays silent, and the page plays a new connection when it is open.
      this.addEventListener('connectionstatechange', () => {
        if (this.connectionState !== 'connected' || this.tapped) return;
        this.tapped = true;
        const ctx = window.__ctx ??= new AudioContext({ sampleRate: 48000 });
        for (const t of window.__taps ?? []) t.disconnect();
        const src = ctx.createMediaStreamSource(new MediaStream(this.getReceivers().map(r => r.track)));
        const tap = ctx.createScriptProcessor(4096, 1, 1);
        tap.onaudioprocess = ev => {
          window.__heard.push(Float32Array.from(ev.inputBuffer.getChannelData(0)));
          window.__count += 4096;
          total += 4096;
          while (total > keep) total -= window.__heard.shift().length;
        };
        src.connect(tap);
        tap.connect(ctx.destination);
        window.__taps = [src, tap];
      });
    }
  };
  // The last n samples that were played: base64.
  window.__last = n => {
    const all = window.__heard, out = new Int16Array(n);
    let to = n;
    for (let i = all.length - 1; i >= 0 && to > 0; i--) {
      for (let j = all[i].length - 1; j >= 0 && to > 0; j--) out[--to] = Math.max(-32768, Math.min(32767, Math.round(all[i][j] * 32767)));
    }
    const bytes = new Uint8Array(out.buffer);
    let s = '';
    for (let i = 0; i < bytes.length; i += 0x8000) s += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
    return btoa(s);
  };
  const gum = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = c => gum({ ...c, audio: c.audio && {
    ...(typeof c.audio === 'object' ? c.audio : {}), echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
});

// What the audio track of the last peer connection has played: ms that came in
// packets, and ms that NetEq made up for lack of them (silence included, to which
// it fades soon), at a time on the clock of the statistics.
const played = () => page.evaluate(async () => {
  const pc = window.__pcs.at(-1);
  for (const r of (await pc.getStats()).values()) {
    if (r.type !== 'inbound-rtp' || r.kind !== 'audio') continue;
    return { pc: window.__pcs.length, at: r.timestamp, received: (r.totalSamplesReceived - r.concealedSamples) / 48, concealed: r.concealedSamples / 48 };
  }
  throw new Error('nothing comes in');
});

// Sound that was not there at the call. The page plays on when nothing comes.
async function hear(ms) {
  const was = await played();
  const s = await page.evaluate(async want => {
    const n = want * 48, at = window.__count, limit = performance.now() + 2 * want + 1000;
    while (window.__count - at < n) {
      if (performance.now() > limit) throw new Error(`${Math.round((window.__count - at) / 48)} of ${want} ms were played`);
      await new Promise(f => setTimeout(f, 20));
    }
    return window.__last(n);
  }, ms);
  const now = await played();
  if (now.pc === was.pc && now.received - was.received < 0.8 * ms) throw new Error(`${Math.round(now.received - was.received)} of ${ms} ms came in packets`);
  return s;
}

const does = {
  async open({ url, name, pin }) {
    await page.goto(url);
    await page.getByTestId('name').fill(name);
    if (pin) await page.getByTestId('pin').fill(pin);
    await page.waitForFunction(() => document.querySelector('[data-testid=mic-select]')?.options.length > 0);
    await page.getByTestId('join').click();
    await page.waitForFunction(() => window.parley?.state.phase === 'room', null, { timeout: 15000 });
    return true;
  },
  visit: ({ url }) => page.goto(url).then(() => true),
  hear: ({ ms }) => hear(ms),
  last: ({ ms }) => page.evaluate(n => window.__last(n), ms * 48),
  played,
  eval: ({ js }) => page.evaluate(js),
  click: ({ testid }) => page.getByTestId(testid).click(),
  look: ({ width, height, dark }) => Promise.all([page.setViewportSize({ width, height }), page.emulateMedia({ colorScheme: dark ? 'dark' : 'light', reducedMotion: 'reduce' })]).then(() => true),
  press: ({ key }) => page.keyboard.press(key).then(() => true),
  shot: ({ path }) => page.screenshot({ path }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const cmd = JSON.parse(line);
  if (cmd.do === 'close') break;
  try {
    process.stdout.write(JSON.stringify({ ok: (await does[cmd.do](cmd)) ?? null }) + '\n');
  } catch (e) {
    process.stdout.write(JSON.stringify({ error: String(e) }) + '\n');
  }
}
await context.close();
rmSync(profile, { recursive: true, force: true });
