// The C reference of Noise (noise-c, as WebAssembly) behind lines of JSON: one request a line on standard input, one answer a
// line on standard output. Bytes are hex. The first argument is the folder that holds node_modules.
//
//   {"do": "start", "protocol": "Noise_XX_25519_AESGCM_SHA256", "initiator": true, "prologue": "", "static": "", "remote": ""?}
//   {"do": "write", "payload": ""}   ->  {"message": ""}
//   {"do": "read", "message": ""}    ->  {"payload": ""}
//   {"do": "split"}                  ->  {"h": "", "remote": ""}
//   {"do": "seal", "plaintext": ""}  ->  {"ciphertext": ""}
//   {"do": "open", "ciphertext": ""} ->  {"plaintext": ""}
//
// What fails is answered with {"error": ""}, and the handshake is over.
"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");
const readline = require("node:readline");

const createNoise = createRequire(path.join(path.resolve(process.argv[2]), "package.json"))("noise-c.wasm");
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");
const EMPTY = new Uint8Array(0);

createNoise((noise) => {
  let state, sending, receiving;

  const acts = {
    start({ protocol, initiator, prologue, static: own, remote }) {
      const role = initiator ? noise.constants.NOISE_ROLE_INITIATOR : noise.constants.NOISE_ROLE_RESPONDER;
      state = noise.HandshakeState(protocol, role);
      state.Initialize(bytes(prologue), bytes(own), remote ? bytes(remote) : null, null);
      return {};
    },
    write: ({ payload }) => ({ message: hex(state.WriteMessage(payload ? bytes(payload) : null)) }),
    read: ({ message }) => ({ payload: hex(state.ReadMessage(bytes(message), true)) }),
    split() {
      if (state.GetAction() !== noise.constants.NOISE_ACTION_SPLIT) throw new Error("the handshake has not finished");
      const answer = { h: hex(state.GetHandshakeHash()), remote: hex(state.GetRemotePublicKey()) };
      [sending, receiving] = state.Split();
      return answer;
    },
    seal: ({ plaintext }) => ({ ciphertext: hex(sending.EncryptWithAd(EMPTY, bytes(plaintext))) }),
    open: ({ ciphertext }) => ({ plaintext: hex(receiving.DecryptWithAd(EMPTY, bytes(ciphertext))) }),
  };

  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    let answer;
    try {
      const request = JSON.parse(line);
      answer = acts[request.do](request);
    } catch (error) {
      answer = { error: String(error.message || error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  });
});
