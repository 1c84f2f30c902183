// Verifies pushes the way receivers in JavaScript do: `v1` with the official library, `v1a`, which
// that library does not know, with Node's own crypto.
//
// Reads from standard input a JSON list of {key, headers, body (base64)}, and writes a list of what
// was verified: the event's type, or {error}.
"use strict";

const { createPublicKey, verify } = require("node:crypto");
const { text } = require("node:stream/consumers");
const { Webhook } = require("standardwebhooks");

function verifyEd25519(key, headers, body) {
  const x = Buffer.from(key.slice("whpk_".length), "base64").toString("base64url");
  const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const prefix = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`;
  const content = Buffer.concat([Buffer.from(prefix), body]);
  const verified = headers["webhook-signature"]
    .split(" ")
    .map((one) => one.split(","))
    .filter(([version]) => version === "v1a")
    .some(([, signature]) => verify(null, content, publicKey, Buffer.from(signature, "base64")));
  if (!verified) throw new Error("No matching signature found");
  return JSON.parse(body.toString());
}

function verified({ key, headers, body }) {
  const bytes = Buffer.from(body, "base64");
  try {
    const event = key.startsWith("whpk_")
      ? verifyEd25519(key, headers, bytes)
      : new Webhook(key).verify(bytes, headers);
    return event.type;
  } catch (error) {
    return { error: error.message };
  }
}

text(process.stdin).then((given) => {
  process.stdout.write(JSON.stringify(JSON.parse(given).map(verified)));
});
