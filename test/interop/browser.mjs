// Drives one Chromium, told what to do by JSON lines on standard input; each is
// answered by one JSON line. Used by the interop tests, see browser_test.go.
//
//   node browser.mjs MICROPHONE.wav
//   {"do":"open","url":…,"name":…,"pin":…}   join a room by its link
//   {"do":"hear","ms":N}                     the last N ms that were played: base64, s16le, mono, 48 kHz
//   {"do":"eval","js":…}                     evaluate in the page
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
const page = context.pages()[0] ?? await context.newPage();
page.on('console', m => process.stderr.write(`page: ${m.text()}\n`));
page.on('pageerror', e => process.stderr.write(`page error: ${e}\n`));

// The microphone is a steady tone, which a browser's noise suppression takes
// for noise; what is heard is recorded from each remote track.
await page.addInitScript(() => {
  window.__heard = [];
  window.__pcs = [];
  const keep = 48000 * 60;
  let total = 0;
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      window.__pcs.push(this);
      this.addEventListener('track', e => {
        const ctx = window.__ctx ??= new AudioContext({ sampleRate: 48000 });
        const src = ctx.createMediaStreamSource(new MediaStream([e.track]));
        const tap = ctx.createScriptProcessor(4096, 1, 1);
        tap.onaudioprocess = ev => {
          window.__heard.push(Float32Array.from(ev.inputBuffer.getChannelData(0)));
          total += 4096;
          while (total > keep) total -= window.__heard.shift().length;
        };
        src.connect(tap);
        tap.connect(ctx.destination);
        (window.__taps ??= []).push(src, tap);
      });
    }
  };
  const gum = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = c => gum({ ...c, audio: c.audio && {
    ...(typeof c.audio === 'object' ? c.audio : {}), echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
});

const hear = ms => page.evaluate(want => {
  const all = window.__heard, n = want * 48;
  const out = new Int16Array(n);
  let at = n;
  for (let i = all.length - 1; i >= 0 && at > 0; i--) {
    for (let j = all[i].length - 1; j >= 0 && at > 0; j--) out[--at] = Math.max(-32768, Math.min(32767, Math.round(all[i][j] * 32767)));
  }
  const bytes = new Uint8Array(out.buffer, at * 2);
  let s = '';
  for (let i = 0; i < bytes.length; i += 0x8000) s += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(s);
}, ms);

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
  hear: ({ ms }) => hear(ms),
  eval: ({ js }) => page.evaluate(js),
  click: ({ testid }) => page.getByTestId(testid).click(),
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
