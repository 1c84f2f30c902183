// Shows attempts: when they were made, how their time was spent, and what the receiver answered.
import { html } from "../../vendor/standalone.module.js";
import { duration, State, Text, Time } from "../../ui/text.js";

const OUTCOMES = {
  delivered: "delivered", status: "refused", timeout: "timed out", dns: "host not found", connect: "no connection",
  tls: "TLS failed", reset: "connection broken", protocol: "not HTTP", proxy: "proxy failed", refused_target: "address not allowed",
};

// What an attempt came to, in words: "HTTP 500", "no connection".
export const outcomeText = (attempt) =>
  attempt.outcome === "status" ? `HTTP ${attempt.status}` : `${OUTCOMES[attempt.outcome] ?? attempt.outcome}${attempt.status ? `, HTTP ${attempt.status}` : ""}`;

// The times of an attempt count from its beginning; these are the parts between them.
function partsOf(attempt) {
  const ends = [["DNS", attempt.dns_ms], ["connect", attempt.connect_ms], ["first byte", attempt.first_byte_ms]];
  const parts = [];
  let from = 0;
  for (const [name, end] of ends.filter(([, end]) => end !== null)) {
    parts.push([name, Math.max(0, end - from)]);
    from = Math.max(from, end);
  }
  const rest = Math.max(0, attempt.duration_ms - from);
  const all = [...parts, [attempt.first_byte_ms === null ? "no answer" : "rest of the answer", rest]];
  return all.filter(([, ms]) => ms > 0); // a connection that is used again takes no time
}

const CLASSES = { DNS: "dns", connect: "connect", "first byte": "wait", "rest of the answer": "rest", "no answer": "none" };
const milliseconds = (ms) => duration(ms / 1000);

function Split({ attempt, longest }) {
  const parts = partsOf(attempt);
  return html`<div class="split">
    <div class="bar" aria-hidden="true">${parts.map(([name, ms]) => html`<i class=${CLASSES[name]}
      title="${name}: ${milliseconds(ms)}" style=${{ width: `${(100 * ms) / Math.max(longest, 1)}%` }}></i>`)}</div>
    <p class="muted">${milliseconds(attempt.duration_ms)}${parts.length > 0 && ": "}${parts.map(([name, ms], at) => html`${at > 0 && ", "}<i class="mark ${CLASSES[name]}" aria-hidden="true"></i>${name} ${milliseconds(ms)}`)}</p>
  </div>`;
}

export function Attempt({ attempt, longest = attempt.duration_ms }) {
  return html`<div class="attempt">
    <p class="row"><span class="strong">Attempt ${attempt.number}</span>
      <${State} state=${attempt.outcome === "delivered" ? "delivered" : "failed"} label=${outcomeText(attempt)} />
      <${Time} at=${attempt.at} />
      ${attempt.replay && html`<span class="chip">replay</span>`}
      ${!attempt.counted && html`<span class="chip">uses up no retry</span>`}</p>
    <${Split} attempt=${attempt} longest=${longest} />
    ${attempt.error && attempt.error !== outcomeText(attempt) && html`<p class="bad"><${Text} value=${attempt.error} /></p>`}
    ${attempt.excerpt && html`<p class="muted">The receiver answered:</p>
      <div class="excerpt"><${Text} value=${attempt.excerpt} mono /></div>`}
  </div>`;
}

export const Attempts = ({ attempts }) => {
  const longest = Math.max(...attempts.map((one) => one.duration_ms));
  return html`<ol class="attempts">${attempts.map((one) => html`<li key=${`${one.at} ${one.number}`}><${Attempt} attempt=${one} longest=${longest} /></li>`)}</ol>`;
};
