// The fields of a subscription.
import { html, useRef } from "../../vendor/standalone.module.js";
import { get } from "../../api.js";
import { isAdmin, isSubscriber } from "../../session.js";
import { Field, labelsText, readLabels, readList } from "../../ui/form.js";
import { useLoad } from "../../ui/load.js";
import { sentence, Text } from "../../ui/text.js";

export const EVENT_TYPES = [
  "course.created", "course.updated", "course.deleted",
  "integration.baseline_completed", "integration.epoch_started", "integration.error", "integration.recovered", "integration.review_required",
  "subscription.deliveries_dead", "subscription.disabled", "subscription.parked", "subscription.recovered",
];
const same = (values) => values.map((one) => [one, one]);
const typesOf = (kind) => [[`${kind}.*`, `${kind}.*`], ...same(EVENT_TYPES.filter((type) => type.startsWith(`${kind}.`)))];
export const CHANGED_PATHS = [
  "remote_id", "origin_id", "remote_created_at", "remote_data", "custom_fields", "integration_fields", "provider", "revisions",
  ...["remote_id", "remote_created_at", "remote_deleted_at", "remote_data", "title", "description", "remote_url", "status",
    "custom_fields", "integration_fields", "skill_assignments"].map((name) => `revisions.${name}`),
];
const FEW = 20; // integrations that are offered for a choice
const NUMBERS = ["max_concurrency", "rate_per_second", "timeout_seconds"];
const LISTS = ["event_types", "changed"];
// Where a token finds the integrations that it may name.
export const integrationsPath = () => (isSubscriber() ? "/v1/me/integrations" : "/v1/integrations");
export const EVENT_TYPE_GROUPS = ["course", "integration", "subscription"].map(typesOf);

export const initialValues = (one = {}) => ({
  url: one.url ?? "",
  description: one.description ?? "",
  event_types: one.event_types ?? [],
  changed: one.changed ?? [],
  integration_ids: (one.integration_ids ?? []).join("\n"),
  labels: labelsText(one.labels),
  payload: one.payload ?? "full",
  format: one.format ?? "standard",
  headers: "",
  "client_certificate.certificate": "",
  "client_certificate.private_key": "",
  no_headers: false,
  no_certificate: false,
  ...Object.fromEntries(NUMBERS.map((name) => [name, String(one[name] ?? "")])),
  retry_schedule_seconds: (one.retry_schedule_seconds ?? []).join(", "),
  from: "now",
  from_time: "",
  signature: "hmac",
  secret: "",
  paused: one.paused ?? false,
  owner: one.owner ?? "",
});

// What is not a number goes to the API as it is, which says what is wrong with it.
const numeric = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
const orNull = (list) => (list.length ? list : null);

function readHeaders(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return Object.fromEntries(lines.map((line) => {
    const [name, ...value] = line.split(":");
    return [name.trim(), value.join(":").trim()];
  }));
}

// The body of a request. Fields left empty are left out where the API has another default than null.
export function bodyOf(values, { creating = false } = {}) {
  const labels = readLabels(values.labels);
  const certificate = values["client_certificate.certificate"].trim();
  const key = values["client_certificate.private_key"].trim();
  const schedule = readList(values.retry_schedule_seconds);
  return {
    url: values.url.trim(),
    description: values.description.trim() || null,
    ...Object.fromEntries(LISTS.map((name) => [name, orNull(values[name])])),
    integration_ids: orNull(readList(values.integration_ids)),
    labels: Object.keys(labels).length ? labels : null,
    payload: values.payload,
    format: values.format,
    rate_per_second: values.rate_per_second === "" ? null : numeric(values.rate_per_second),
    ...Object.fromEntries(["max_concurrency", "timeout_seconds"].filter((name) => values[name] !== "").map((name) => [name, numeric(values[name])])),
    ...(schedule.length && { retry_schedule_seconds: schedule.map(numeric) }),
    ...(values.no_headers ? { headers: {} } : values.headers.trim() && { headers: readHeaders(values.headers) }),
    ...(values.no_certificate ? { client_certificate: null } : (certificate || key) && {
      client_certificate: { certificate, private_key: key } }),
    ...(isAdmin() && { owner: values.owner.trim() || null }),
    ...(creating && {
      paused: values.paused,
      ...(values.from !== "now" && { from: values.from === "time" ? new Date(values.from_time || NaN).toJSON() ?? "" : values.from }),
      ...(values.secret.trim() ? { secret: values.secret.trim() } : { signature: values.signature }),
    }),
  };
}

let numbers = 0;

// Several values of a few, in groups, with the errors of the API below.
export function Choices({ form, name, legend, hint, groups }) {
  form.names.add(name);
  const id = useRef(`choices-${++numbers}`).current;
  const chosen = form.values[name];
  const errors = form.errorOf(name);
  const toggle = (value) => form.set({ [name]: chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value] });
  return html`<fieldset aria-describedby="${id}-hint ${id}-error"><legend>${legend}</legend>
    <p class="hint" id="${id}-hint">${hint}</p>
    <div class="choices">${groups.map((options) => html`<div>${options.map(([value, text]) => html`<label key=${value}>
      <input type="checkbox" checked=${chosen.includes(value)} onChange=${() => toggle(value)} /> ${text}</label>`)}</div>`)}</div>
    <div class="error" id="${id}-error">${errors?.map((one) => html`<p><${Text} value=${sentence(one.message)} /> <${Text} value=${sentence(one.remedy)} fallback="" /></p>`)}</div>
  </fieldset>`;
}

// `one`: the subscription that is edited, if there is one.
export function SubscriptionFields({ form, one }) {
  const secrets = one
    ? html`${Object.keys(one.headers).length > 0 && html`<${Field} form=${form} name="no_headers" label="Remove all headers" type="checkbox" />`}
        ${one.client_certificate && html`<${Field} form=${form} name="no_certificate" label="Remove the client certificate" type="checkbox" />`}`
    : null;
  const headers = one && Object.keys(one.headers).length ? `Set are ${Object.keys(one.headers).join(", ")}. Empty: they stay.` : "One “Name: value” on each line, sent with every push.";
  return html`
    <div class="columns">
      <${Field} form=${form} name="url" label="URL" type="url" required spellcheck=${false} hint="Where events are posted to, such as https://example.com/hooks." />
      <${Field} form=${form} name="description" label="Description" hint="The purpose, such as search index." />
    </div>
    <${Choices} form=${form} name="event_types" legend="Event types" groups=${EVENT_TYPE_GROUPS}
      hint="None chosen: every course event. Events about integrations and subscriptions are sent only if chosen. Those with * include types of later releases." />
    <details open=${form.values.changed.length > 0}><summary>Only some changes or integrations</summary><div class="stack">
      <${Choices} form=${form} name="changed" legend="Changed paths" groups=${[same(CHANGED_PATHS.filter((one) => !one.includes("."))), same(CHANGED_PATHS.filter((one) => one.includes(".")))]}
        hint="None chosen: any change. This filter applies only to course.updated." />
      <div class="columns">
        <${Integrations} form=${form} />
        <${Field} form=${form} name="labels" label="Labels" type="textarea" hint="One NAME=VALUE on each line: only integrations that carry all of them." />
      </div>
    </div></details>
    <details><summary>Content, headers, certificate</summary><div class="stack">
      <div class="columns">
        <${Field} form=${form} name="payload" label="Payload" type="select" options=${[["full", "full: with the course"], ["thin", "thin: without the course"]]} />
        <${Field} form=${form} name="format" label="Format" type="select" options=${[["standard", "standard: Standard Webhooks"], ["cloudevents", "cloudevents: CloudEvents 1.0"]]} />
      </div>
      <${Field} form=${form} name="headers" label="Headers" type="textarea" spellcheck=${false} autocomplete="off" hint="${headers} Values are encrypted and never shown again." />
      <div class="columns">
        <${Field} form=${form} name="client_certificate.certificate" label="Client certificate" type="textarea" spellcheck=${false} hint="PEM, for receivers that require one (mTLS)." />
        <${Field} form=${form} name="client_certificate.private_key" label="Its private key" type="textarea" spellcheck=${false} autocomplete="off" hint="PEM without a passphrase. Encrypted and never shown again." />
      </div>
      ${secrets}
    </div></details>
    <details><summary>Rate, timeout, retries</summary><div class="columns">
      <${Field} form=${form} name="max_concurrency" label="Pushes at once" type="number" min="1" hint="8 if left empty." />
      <${Field} form=${form} name="rate_per_second" label="Pushes per second" type="number" min="0" step="any" hint="Empty: no limit." />
      <${Field} form=${form} name="timeout_seconds" label="Timeout in seconds" type="number" min="1" step="any" hint="15 if left empty." />
      <${Field} form=${form} name="retry_schedule_seconds" label="Waits before retries" hint="Seconds with commas between them. Empty: ten attempts in 75 hours." />
    </div></details>
    ${isAdmin() && html`<details><summary>Owner</summary><${Owner} form=${form} /></details>`}
    ${!one && html`<details><summary>Start and signature</summary><div class="stack">
      <div class="columns">
        <${Field} form=${form} name="from" label="Begins with" type="select" options=${[["now", "events from now on"], ["oldest", "every event that is kept"], ["time", "events since a time"]]} />
        ${form.values.from === "time" && html`<${Field} form=${form} name="from_time" label="Since" type="datetime-local" hint="In your own time." />`}
        <${Field} form=${form} name="signature" label="Signature" type="select" options=${[["hmac", "hmac: a shared secret"], ["ed25519", "ed25519: a public key for the receiver"]]} />
        <${Field} form=${form} name="secret" label="Secret of your own" type="password" autocomplete="off" hint="whsec_ or whsk_ and base64. Empty: one is generated." />
      </div>
      <${Field} form=${form} name="paused" label="Start paused: queue events, send nothing yet" type="checkbox" />
    </div></details>`}`;
}

function Owner({ form }) {
  const list = useLoad((signal) => get("/v1/api-keys", { limit: 500 }, signal), []);
  const keys = (list.data?.items ?? []).filter((key) => key.scope === "subscriber").map((key) => [key.id, key.name]);
  const chosen = form.values.owner;
  if (chosen && !keys.some(([id]) => id === chosen)) keys.push([chosen, chosen]);
  return html`<${Field} form=${form} name="owner" label="API key that owns it" type=${list.data?.next ? "text" : "select"}
    options=${[["", "none: it is the operator's"], ...keys]}
    hint="The holder of the key sees the subscription and its secret, and only events that the key may see are sent. Pending events that it may not see become dead." />`;
}

function Integrations({ form }) {
  const list = useLoad((signal) => get(integrationsPath(), { limit: FEW + 1 }, signal), []);
  const known = list.data?.items ?? [];
  const chosen = readList(form.values.integration_ids);
  const add = (event) => {
    if (event.target.value) form.set({ integration_ids: [...chosen, event.target.value].join("\n") });
    event.target.value = "";
  };
  return html`<div class="stack">
    <${Field} form=${form} name="integration_ids" label="Integrations" type="textarea" spellcheck=${false} hint="One id on each line. Empty: all that your token may see." />
    ${known.length > 0 && known.length <= FEW && html`<select aria-label="Add an integration" onChange=${add}>
      <option value="">Add an integration …</option>
      ${known.filter((one) => !chosen.includes(one.id)).map((one) => html`<option value=${one.id}>${one.name}</option>`)}
    </select>`}
  </div>`;
}
