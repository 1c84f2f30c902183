// Shows values: text from data, times, states, identifiers, JSON.
import { html, useEffect, useState } from "../vendor/standalone.module.js";

const SHOWN = 300; // characters of a long text
const LONG = 40; // characters of a word that tables may break anywhere
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

// Characters that would not show, or would reorder the text around them, as escapes.
export const visible = (text) =>
  String(text).replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

// Text that comes from outside. A long one is cut, with a button that shows the rest; `brief`,
// within links and headings, without.
export function Text({ value, mono = false, brief = false, fallback = "–" }) {
  const [whole, setWhole] = useState(false);
  if (value === null || value === undefined || value === "")
    return html`<span class="muted">${fallback}</span>`;
  const text = visible(value);
  const cut = !whole && text.length > SHOWN;
  const long = text.split(/\s/).some((word) => word.length > LONG);
  return html`<bdi class="${mono ? "mono" : ""} ${long ? "long" : ""}">${cut ? `${text.slice(0, SHOWN)}…` : text}${cut &&
    !brief &&
    html` <button type="button" class="link" onClick=${() => setWhole(true)}>
      ${count(text.length - SHOWN, "more character")}</button>`}</bdi>`;
}

// What the API says in passing, as a sentence of its own.
export const sentence = (text) =>
  text && `${text[0].toUpperCase()}${text.slice(1)}${/[.!?>]$/.test(text) ? "" : "."}`;

const numbers = new Intl.NumberFormat();
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
export const number = (value) =>
  value === null || value === undefined ? "–" : numbers.format(value);
export const short = (value) => (value < 100_000 ? number(value) : compact.format(value));
export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
export const percent = (share) =>
  new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 }).format(share);

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

const UNITS = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${numbers.format(Math.round(seconds * 10) / 10)} s`;
  const first = UNITS.findIndex(([size]) => seconds >= size);
  const [size, name] = UNITS[first];
  const [smaller, smallerName] = UNITS[first + 1] ?? [];
  const rest = smaller ? Math.floor((seconds % size) / smaller) : 0;
  const more = rest ? ` ${rest} ${smallerName}` : "";
  return `${Math.floor(seconds / size)} ${name}${more}`;
}

const dated = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const timed = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

// `next`: of something to come, which is due once its time is past.
function relative(at, next) {
  if (next && at <= Date.now()) return "now";
  const seconds = Math.round(Math.abs(Date.now() - at) / 1000);
  if (seconds < 1) return "now";
  const [size, name] = UNITS.find(([one]) => seconds >= one);
  const text = `${Math.floor(seconds / size)} ${name}`;
  return at > Date.now() ? `in ${text}` : `${text} ago`;
}

// A time in the person's own zone, with UTC on hover; `ago`: how long ago, or how soon, or, for what
// comes `next`, that it is due.
export function Time({ at, ago = false, next = false, fallback = "–" }) {
  const [, tick] = useState(0);
  useEffect(() => {
    if (!ago || !at) return undefined;
    const timer = setInterval(() => tick((n) => n + 1), 5_000);
    return () => clearInterval(timer);
  }, [ago, at]);
  if (!at) return html`<span class="muted">${fallback}</span>`;
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  const local = (today ? timed : dated).format(date);
  const utc = `${date.toISOString().replace("T", " ").replace("Z", "")} UTC`;
  return html`<time datetime=${at} title=${ago ? `${dated.format(date)}\n${utc}` : utc}
    >${ago ? relative(date, next) : local}</time>`;
}

const TONES = {
  ok: ["active", "ok", "delivered", "completed", "live", "idle", "busy", "up"],
  busy: ["pending", "queued", "running", "started", "publishing", "accepting_silently"],
  warn: ["review", "retrying", "parked", "held", "open", "degraded", "quarantined", "suspended"],
  bad: ["error", "failed", "dead", "disabled", "down", "refused"],
  off: ["paused", "cancelled", "deleted", "none"],
};

export const tone = (state) =>
  Object.keys(TONES).find((name) => TONES[name].includes(state)) ?? "off";

// A state as a word with a mark, so that colour is never all there is.
export function State({ state, label = state }) {
  return html`<span class="state ${tone(state)}">${label}</span>`;
}

async function put(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = Object.assign(document.createElement("textarea"), { value: text }); // plain HTTP
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  return area.remove();
}

// A button that copies `text`.
export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await put(text);
    setDone(true);
    setTimeout(() => setDone(false), 1_500);
  };
  return html`<button type="button" class="small" onClick=${copy} aria-live="polite"
    >${done ? "Copied" : label}</button>`;
}

// An identifier, in fixed width, with a button that copies it.
export const Id = ({ id }) => html`<span class="id"><code>${visible(id)}</code>
  <button type="button" class="icon" title="Copy" aria-label=${`Copy ${id}`}
    onClick=${() => put(id)}><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M5 5h8v9H5zM3 11V2h8" /></svg></button></span>`;

export const Json = ({ value }) =>
  html`<pre class="json" tabindex="0" role="region" aria-label="JSON">${visible(
    JSON.stringify(value, null, 2),
  )}</pre>`;

// Text to paste: a secret, a command, a file.
export const Code = ({ text, label }) => html`<div class="code">
  <pre tabindex="0" role="region" aria-label=${label}>${visible(text)}</pre>
  <${Copy} text=${text} /></div>`;

// A link to another site, if it is one of the web; else the text.
export function Outside({ href, children }) {
  const shown = children ?? html`<${Text} value=${href} brief />`;
  const safe = URL.canParse(href ?? "") && /^https?:$/.test(new URL(href).protocol);
  return safe
    ? html`<a href=${href} target="_blank" rel="noopener noreferrer">${shown}</a>`
    : html`<${Text} value=${href} />`;
}

export const Chips = ({ items, none = "–" }) =>
  items?.length
    ? html`<span class="chips">${items.map(
        (one) => html`<span class="chip">${typeof one === "object" ? one : html`<${Text} value=${one} />`}</span>`,
      )}</span>`
    : none && html`<span class="muted">${none}</span>`;

export const Labels = ({ labels, none }) => html`<${Chips} none=${none}
  items=${labels && Object.entries(labels).map(([name, value]) => `${name}=${value}`)} />`;

// What stands where there is nothing: what it would hold and what to do first.
export const Empty = ({ title, children, action }) => html`<div class="empty">
  <p class="strong">${title}</p><div>${children}</div>${action && html`<p class="row">${action}</p>`}</div>`;
