// Participants of noble's FROST(Ed25519, SHA-512) behind lines of JSON: one request a line on standard input, one answer a line
// on standard output. Bytes are hex. The first argument is the folder that holds node_modules.
//
//   {"do": "round1", "id": 1, "min": 2, "max": 3}         ->  {"commitment": [""], "proof": ""}
//   {"do": "round2", "id": 1, "others": [round 1]}        ->  {"shares": {"2": ""}}
//   {"do": "round3", "id": 1, "shares": {"2": ""}}        ->  {"public": "", "verification": {"1": ""}, "share": ""}
//   {"do": "commit", "id": 1}                             ->  {"hiding": "", "binding": ""}
//   {"do": "sign", "id": 1, "message": "", "list": [{}]}  ->  {"share": ""}
//
// A round 1 is {"id": 2, "commitment": [""], "proof": ""}. What fails is answered with {"error": ""}.
"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");
const readline = require("node:readline");
const { pathToFileURL } = require("node:url");

const found = createRequire(path.join(path.resolve(process.argv[2]), "package.json")).resolve("@noble/curves/ed25519.js");
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");

import(pathToFileURL(found).href).then(({ ed25519_FROST: frost }) => {
  const name = (id) => frost.Identifier.fromNumber(id);
  const number = (id) => bytes(id)[0];
  const each = (object, change) => Object.fromEntries(Object.entries(object).map(([id, data]) => [number(id), change(data)]));
  const members = {}; // by id: secret, others, key, nonces

  const acts = {
    round1({ id, min, max }) {
      const made = frost.DKG.round1(name(id), { min, max });
      members[id] = { secret: made.secret };
      return { commitment: made.public.commitment.map(hex), proof: hex(made.public.proofOfKnowledge) };
    },
    round2({ id, others }) {
      members[id].others = others.map((other) => ({
        identifier: name(other.id), commitment: other.commitment.map(bytes), proofOfKnowledge: bytes(other.proof),
      }));
      return { shares: each(frost.DKG.round2(members[id].secret, members[id].others), (sent) => hex(sent.signingShare)) };
    },
    round3({ id, shares }) {
      const member = members[id];
      const sent = Object.entries(shares).map(([from, share]) => ({ identifier: name(Number(from)), signingShare: bytes(share) }));
      member.key = frost.DKG.round3(member.secret, member.others, sent);
      const { commitments, verifyingShares } = member.key.public;
      return { public: hex(commitments[0]), verification: each(verifyingShares, hex), share: hex(member.key.secret.signingShare) };
    },
    commit({ id }) {
      const made = frost.commit(members[id].key.secret);
      members[id].nonces = made.nonces;
      return { hiding: hex(made.commitments.hiding), binding: hex(made.commitments.binding) };
    },
    sign({ id, message, list }) {
      const { key, nonces } = members[id];
      const commitments = list.map((one) => ({ identifier: name(one.id), hiding: bytes(one.hiding), binding: bytes(one.binding) }));
      return { share: hex(frost.signShare(key.secret, key.public, nonces, commitments, bytes(message))) };
    },
  };

  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const request = JSON.parse(line);
    let answer;
    try {
      answer = acts[request.do](request);
    } catch (error) {
      answer = { error: error.message };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  });
});
