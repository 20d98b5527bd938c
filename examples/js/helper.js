// A helper in the chat: greets who joins, and answers !who, !hands and !help.
//
//   parley bot create helper --room main --allow chat
//   cd examples/js && npm install && node helper.js ../../helper.creds
//
// Of several copies exactly one answers: start two for safety.
import { connect } from "@parley-jami/parley";

const [creds = "helper.creds", url] = process.argv.slice(2);
const room = await connect({ creds, url });
console.log(`connected to ${room.name}; joins as soon as no other copy answers there`);
const stop = new AbortController();
for (const s of ["SIGINT", "SIGTERM"]) process.once(s, () => stop.abort());

const people = async () => (await room.get()).room.participants.filter((p) => p.id !== room.me);

const answers = {
  "!help": async () => "!who: who is here. !hands: whose hand is up, longest first.",
  "!who": async () => {
    const names = (await people()).map((p) => p.name + (p.muted ? " (muted)" : ""));
    return names.length ? `Here: ${names.join(", ")}` : "Nobody is here.";
  },
  "!hands": async () => {
    const up = (await people()).filter((p) => p.hand).sort((a, b) => new Date(a.hand) - new Date(b.hand));
    return up.length ? `Hands: ${up.map((p) => p.name).join(", ")}` : "No hand is up.";
  },
};

// It leaves while the lease is held: the next copy joins anew.
await room.lead((signal) => room.stay("Helper", async ({ seq }, signal) => {
  console.log(`joined ${room.name} as "Helper"; greets who joins, and answers !who, !hands and !help in the chat`);
  await help(seq, signal);
}, { signal }), { signal: stop.signal });
await room.close();

async function help(seq, signal) {
  for await (const e of room.events({ from: seq + 1, signal })) {
    if (e.type === "joined" && e.participant.id !== room.me) {
      await room.chat(`Welcome, ${e.participant.name}. Write !help to see what I can do.`);
    }
    const answer = e.type === "chat" && e.chat.from !== room.me && answers[e.chat.body.trim()];
    if (answer) await room.chat(await answer(), e.chat.id);
  }
}
