// Signers and a coordinator of noble's FROST(Ed25519, SHA-512) for a key that was dealt elsewhere, behind lines of JSON: one
// request a line on standard input, one answer a line on standard output. Bytes are hex. The first argument is the folder that
// holds node_modules.
//
//   {"do": "group", "min": 2, "max": 3, "commitments": [""], "verification": {"1": ""}}   ->  {}
//   {"do": "commit", "id": 1, "share": ""}                                                ->  {"hiding": "", "binding": ""}
//   {"do": "sign", "id": 1, "message": "", "list": [{}]}                                  ->  {"share": ""}
//   {"do": "verify", "id": 1, "message": "", "list": [{}], "share": ""}                   ->  {"good": true}
//   {"do": "aggregate", "message": "", "list": [{}], "shares": {"1": ""}}                 ->  {"signature": ""}
//
// A list has {"id": 1, "hiding": "", "binding": ""}. What fails is answered with {"error": "", "cheaters": [1]}.
"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");
const readline = require("node:readline");
const { pathToFileURL } = require("node:url");

const found = createRequire(path.join(path.resolve(process.argv[2]), "package.json")).resolve("@noble/curves/ed25519.js");
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");

import(pathToFileURL(found).href).then(({ ed25519_FROST: frost }) => {
  const name = (id) => frost.Identifier.fromNumber(Number(id));
  const named = (object) => Object.fromEntries(Object.entries(object).map(([id, data]) => [name(id), bytes(data)]));
  const listed = (list) => list.map((one) => ({ identifier: name(one.id), hiding: bytes(one.hiding), binding: bytes(one.binding) }));
  const members = {}; // by id: secret, nonces
  let group;

  const acts = {
    group({ min, max, commitments, verification }) {
      group = { signers: { min, max }, commitments: commitments.map(bytes), verifyingShares: named(verification) };
      return {};
    },
    commit({ id, share }) {
      const secret = { identifier: name(id), signingShare: bytes(share) };
      frost.validateSecret(secret, group);
      const made = frost.commit(secret);
      members[id] = { secret, nonces: made.nonces };
      return { hiding: hex(made.commitments.hiding), binding: hex(made.commitments.binding) };
    },
    sign({ id, message, list }) {
      const { secret, nonces } = members[id];
      return { share: hex(frost.signShare(secret, group, nonces, listed(list), bytes(message))) };
    },
    verify({ id, message, list, share }) {
      return { good: frost.verifyShare(group, listed(list), bytes(message), name(id), bytes(share)) };
    },
    aggregate({ message, list, shares }) {
      return { signature: hex(frost.aggregate(group, listed(list), bytes(message), named(shares))) };
    },
  };

  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const request = JSON.parse(line);
    let answer;
    try {
      answer = acts[request.do](request);
    } catch (error) {
      answer = { error: error.message, cheaters: (error.cheaters || []).map((id) => bytes(id)[0]) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  });
});
