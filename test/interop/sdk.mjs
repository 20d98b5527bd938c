// A bot on the JavaScript SDK that says back at once what it hears: the few lines
// of docs/bots.md. Run by examples_test.go.
//
//   node sdk.mjs BOT.creds URL
import { connect } from '../../sdk/js/parley.js';

const [creds, url] = process.argv.slice(2);
const room = await connect({ creds, url });
await room.join('SDK');
for await (const f of await room.listen({ speakers: 's16le-48000' })) {
  if (f.speaker !== room.me) await room.say(f.format, f.data);
}
