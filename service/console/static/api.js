// Sends requests to the HTTP API, which alone the console knows.
import { early, request, session, signOut } from "./session.js";

const ROOT = new URL("../../../", import.meta.url); // where the API is served

// What the API says is wrong. `errors` are those of single fields: [{ field, message, remedy }].
export class Problem extends Error {
  constructor(status, document, requestId) {
    super(document.detail);
    this.status = status;
    this.type = (document.type ?? "").replace("urn:coursewire:problem:", "");
    this.title = document.title ?? "The request failed";
    this.detail = document.detail ?? "";
    this.errors = document.errors ?? [];
    this.requestId = requestId;
    this.document = document;
  }
}

function address(path, query) {
  const found = new URL(path.replace(/^\//, ""), ROOT);
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of [value].flat()) {
      if (one !== undefined && one !== null && one !== "") found.searchParams.append(name, one);
    }
  }
  return found;
}

// Whole numbers that JavaScript cannot hold stay as they are written.
const exact = (_key, value, context) =>
  typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) &&
  context?.source && JSON.rawJSON
    ? JSON.rawJSON(context.source)
    : value;

// Builds a path of the API: path`/v1/integrations/${id}` encodes what is filled in.
export const path = (texts, ...values) =>
  String.raw({ raw: texts }, ...values.map(encodeURIComponent));

// The answer to a request: { data, etag, requestId }. Raises Problem. `etag` is sent as If-Match.
export async function send(method, to, { query, body, etag, signal, token } = {}) {
  const used = token ?? session.token;
  const headers = {};
  if (etag) headers["if-match"] = etag;
  if (body !== undefined) headers["content-type"] = "application/json";
  const first = early.token === used && early[to];
  delete early[to];
  let answer, text;
  try {
    ({ answer, text } = await (first || request(address(to, query), used, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    })));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, {
      title: "Coursewire does not answer",
      detail: "The request did not reach the API. Check that the service is running and that this "
        + "machine is connected, then try again.",
    });
  }
  const requestId = answer.headers.get("x-request-id");
  let data = null;
  try {
    data = text ? JSON.parse(text, exact) : null;
  } catch {
    data = { title: `HTTP ${answer.status}`, detail: text.slice(0, 500) };
  }
  if (answer.ok) return { data, etag: answer.headers.get("etag"), requestId };
  if (answer.status === 401 && token === undefined && session.token === used)
    signOut("The token is no longer valid. It has expired or was revoked. Sign in again.");
  throw new Problem(answer.status, data ?? { title: `HTTP ${answer.status}` }, requestId);
}

export const get = async (to, query, signal) => (await send("GET", to, { query, signal })).data;

// What a token may do: { id, name, scope, owner, ... }.
export const whoHas = async (token) => (await send("GET", "/v1/me", { token })).data;
