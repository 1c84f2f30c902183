// Receivers that verify the pushes of one subscription, ready to be pasted and started.
import { html, useState } from "../../vendor/standalone.module.js";
import { Code } from "../../ui/text.js";

const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];

// Where the receiver listens: at the port of a URL that leads to this machine.
function portOf(url) {
  const found = URL.canParse(url) ? new URL(url) : null;
  return found && LOOPBACK.includes(found.hostname) ? Number(found.port) || 80 : 9000;
}

const python = {
  hmac: (key) => [`# pip install standardwebhooks; python receiver.py`, `from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook("${key}")


def verify(body, headers):
    try:
        return webhook.verify(body, headers)
    except WebhookVerificationError:  # forged, or too old
        return None`, ""],
  ed25519: (key) => [`# pip install cryptography; python receiver.py`, `from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

key = Ed25519PublicKey.from_public_bytes(base64.b64decode("${key}".removeprefix("whpk_")))


def verify(body, headers):
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:  # too old
        return None
    signed = f"{headers.get('webhook-id')}.{stamp}.".encode() + body
    for one in headers.get("webhook-signature", "").split():
        version, _, signature = one.partition(",")
        try:
            if version == "v1a":
                key.verify(base64.b64decode(signature), signed)
                return json.loads(body)
        except (InvalidSignature, ValueError):
            pass
    return None  # forged`, "import base64\nimport json\nimport time\n"],
  file: ([install, verify, imports], port) => `${install}
${imports}from http.server import BaseHTTPRequestHandler, HTTPServer

${verify}


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        event = verify(body, {name.lower(): value for name, value in self.headers.items()})
        if event is None:
            return self.send_error(400)
        print(event["type"], event["data"].get("course_id"), flush=True)  # store the event here
        self.send_response(204)
        self.end_headers()


HTTPServer(("127.0.0.1", ${port}), Receiver).serve_forever()
`,
};

const javascript = {
  hmac: (key) => [`// npm install standardwebhooks; node receiver.mjs`, `import { Webhook } from "standardwebhooks";

const webhook = new Webhook("${key}");
const verify = (body, headers) => webhook.verify(body, headers); // throws if forged or too old`],
  ed25519: (key) => [`// node receiver.mjs`, `import { createPublicKey, verify as verifies } from "node:crypto";

const x = Buffer.from("${key}".replace("whpk_", ""), "base64").toString("base64url");
const key = createPublicKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x } });

function verify(body, headers) {
  const stamp = headers["webhook-timestamp"];
  if (!(Math.abs(Date.now() / 1000 - Number(stamp)) <= 300)) throw new Error("too old");
  const signed = Buffer.from(\`\${headers["webhook-id"]}.\${stamp}.\${body}\`);
  const signatures = (headers["webhook-signature"] ?? "").split(" ").map((one) => one.split(","));
  const good = signatures.some(
    ([version, one = ""]) => version === "v1a" && verifies(null, signed, key, Buffer.from(one, "base64")),
  );
  if (!good) throw new Error("forged");
  return JSON.parse(body);
}`],
  file: ([install, verify], port) => `${install}
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
${verify}

createServer(async (request, response) => {
  try {
    const event = verify(await text(request), request.headers);
    console.log(event.type, event.data.course_id); // store the event here
    response.writeHead(204).end();
  } catch (error) {
    console.error(error.message);
    response.writeHead(400).end();
  }
}).listen(${port}, "127.0.0.1");
`,
};

const go = {
  hmac: (key) => [`	"crypto/hmac"
	"crypto/sha256"`, "whsec_", key, `			mac := hmac.New(sha256.New, key)
			mac.Write(signed)
			if version == "v1" && hmac.Equal(given, mac.Sum(nil)) {`],
  ed25519: (key) => [`	"crypto/ed25519"`, "whpk_", key, `			if version == "v1a" && ed25519.Verify(key, signed, given) {`],
  file: ([imports, prefix, key, check], port) => `// go run receiver.go
package main

import (
${imports}
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var key, _ = base64.StdEncoding.DecodeString(strings.TrimPrefix("${key}", "${prefix}"))

func verified(header http.Header, body []byte) bool {
	id, stamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age.Abs() > 5*time.Minute {
		return false
	}
	signed := append([]byte(id+"."+stamp+"."), body...)
	for _, one := range strings.Fields(header.Get("webhook-signature")) {
		version, signature, _ := strings.Cut(one, ",")
		if given, err := base64.StdEncoding.DecodeString(signature); err == nil {
${check}
				return true
			}
		}
	}
	return false
}

func receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil || !verified(r.Header, body) {
		http.Error(w, "forged, or too old", http.StatusBadRequest)
		return
	}
	var event struct {
		Type string
		Data struct {
			CourseID string \`json:"course_id"\`
		}
	}
	if err := json.Unmarshal(body, &event); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Println(event.Type, event.Data.CourseID) // store the event here
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	log.Fatal(http.ListenAndServe("127.0.0.1:${port}", http.HandlerFunc(receive)))
}
`,
};

const LANGUAGES = [["Python", python], ["JavaScript", javascript], ["Go", go]];

// `secret` may be missing, where the code then has a place for it.
export function Receivers({ one, secret }) {
  const [language, setLanguage] = useState("Python");
  const code = Object.fromEntries(LANGUAGES)[language];
  const key = one.signature === "ed25519" ? one.public_key : secret ?? "whsec_...";
  const text = code.file(code[one.signature](key), portOf(one.url));
  return html`<div class="stack">
    <p>The receiver verifies each push and answers 204. It listens on this machine. Run it where the URL of the subscription points.</p>
    <div class="row" role="group" aria-label="Language">${LANGUAGES.map(([name]) => html`<button type="button"
      aria-pressed=${name === language} onClick=${() => setLanguage(name)}>${name}</button>`)}</div>
    <${Code} text=${text} label="Receiver in ${language}" />
  </div>`;
}
