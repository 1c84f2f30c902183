// The fields of an integration, and the check of its values against the upstream.
import { html } from "../vendor/standalone.module.js";
import { get, send } from "../api.js";
import { Field, labelsText, readLabels, readList } from "../ui/form.js";
import { useLoad } from "../ui/load.js";
import { duration, sentence, Text } from "../ui/text.js";

const GUARDS = [
  ["deleted_count", "Deletions that are never held", "Up to this number of deletions in one poll."],
  ["deleted_share", "Share of deletions that is held", "0 to 1 of the live courses."],
  ["deleted_share_max", "Share that is always held", "0 to 1, however few deletions there are."],
  ["changed_count", "Changes that are never held", "Fewer courses that change in one path."],
  ["changed_share", "Share of changes that is held", "0 to 1 of the live courses."],
];
const NEW_CREDENTIAL = "";
// What `coursewire sandbox` starts with if it is given nothing else.
const SANDBOX = { name: "Sandbox", upstream_id: "sandbox:demo", base_url: "http://127.0.0.1:8990/v1", api_key: "sandbox-key", delta_interval_seconds: "5" };

export function initialValues(integration, sandbox = false) {
  const guards = integration?.guards ?? {};
  return {
    name: integration?.name ?? "",
    credential_id: integration?.credential_id ?? NEW_CREDENTIAL,
    base_url: "",
    api_key: "",
    upstream_id: integration?.upstream_id ?? "",
    external_id: integration?.external_id ?? "",
    labels: labelsText(integration?.labels),
    delta_interval_seconds: String(integration?.delta_interval_seconds ?? ""),
    full_interval_seconds: String(integration?.full_interval_seconds ?? ""),
    baseline: integration?.baseline ?? "silent",
    ignore_paths: (integration?.ignore_paths ?? []).join("\n"),
    track_remote_data: integration?.track_remote_data ?? false,
    ...Object.fromEntries(GUARDS.map(([name]) => [`guards.${name}`, String(guards[name] ?? "")])),
    ...(sandbox ? SANDBOX : {}),
  };
}

// The body of a request. Fields that are left empty are left out: the API has defaults for them.
export function bodyOf(values) {
  const numbers = (names, prefix = "") =>
    Object.fromEntries(
      names.filter((name) => values[prefix + name] !== "").map((name) => [name, Number(values[prefix + name])]),
    );
  const guards = numbers(GUARDS.map(([name]) => name), "guards.");
  return {
    name: values.name,
    ...(values.credential_id === NEW_CREDENTIAL
      ? { base_url: values.base_url, api_key: values.api_key }
      : { credential_id: values.credential_id }),
    upstream_id: values.upstream_id,
    external_id: values.external_id || null,
    labels: readLabels(values.labels),
    ...numbers(["delta_interval_seconds", "full_interval_seconds"]),
    baseline: values.baseline,
    ignore_paths: readList(values.ignore_paths),
    track_remote_data: values.track_remote_data,
    ...(Object.keys(guards).length ? { guards } : {}),
  };
}

export const check = async (values) =>
  (await send("POST", "/v1/integrations/check", { body: bodyOf(values) })).data;

export function CheckResult({ result }) {
  if (!result) return null;
  return result.ok
    ? html`<p class="notice good" role="status">The upstream returned a page of courses. These values work.</p>`
    : html`<div class="problem" role="alert">
        <p class="strong">The upstream refused the check${result.status ? ` with HTTP ${result.status}` : ""}</p>
        <p><${Text} value=${sentence(result.message ?? result.code)} /></p>
        <p><${Text} value=${sentence(result.remedy)} fallback="" /></p>
      </div>`;
}

export function IntegrationFields({ form }) {
  const credentials = useLoad((signal) => get("/v1/credentials", { limit: 500 }, signal), []);
  const known = credentials.data?.items ?? [];
  const { values } = form;
  const chosen = values.credential_id;
  const seconds = (name, initial) => {
    const value = Number(values[name]);
    return values[name] === "" || !value ? `In seconds. ${initial} if left empty.` : `Every ${duration(value)}.`;
  };
  return html`
    <div class="columns">
      <${Field} form=${form} name="name" label="Name" required hint="A name for people." />
      <${Field} form=${form} name="upstream_id" label="Integration id at the upstream" required
        hint="Sent as X-Integration-Id, such as workday:HWUTwvyx2wLoSUHphiWVrp28." spellcheck=${false} />
    </div>
    <fieldset><legend>Credential</legend>
      <${Field} form=${form} name="credential_id" label="Credential" type="select"
        options=${[[NEW_CREDENTIAL, "A new one"], ...known.map((one) => [one.id, `${one.name} (${one.base_url})`]),
          ...(chosen && !known.some((one) => one.id === chosen) ? [[chosen, chosen]] : [])]} />
      ${chosen === NEW_CREDENTIAL && html`<div class="columns">
        <${Field} form=${form} name="base_url" label="Base URL" type="url" hint="The part before /lms/courses, such as https://api.kombo.dev/v1." />
        <${Field} form=${form} name="api_key" label="API key" type="password" autocomplete="off"
          hint="Stored encrypted and never shown again." />
      </div>`}
    </fieldset>
    <div class="columns">
      <${Field} form=${form} name="delta_interval_seconds" label="Poll for changed courses" type="number" min="1" hint=${seconds("delta_interval_seconds", "60")} />
      <${Field} form=${form} name="full_interval_seconds" label="Poll for all courses" type="number" min="1" hint=${seconds("full_interval_seconds", "21,600 (6 h)")} />
    </div>
    <details><summary>Reference, labels, first full poll, ignored fields</summary><div class="stack">
      <div class="columns">
        <${Field} form=${form} name="external_id" label="Your reference" hint="Such as the number of a customer (external_id). Repeated in every event." />
        <${Field} form=${form} name="baseline" label="First full poll" type="select"
          options=${[["silent", "reports nothing (silent)"], ["emit", "reports every course as created (emit)"]]} />
      </div>
      <div class="columns">
        <${Field} form=${form} name="labels" label="Labels" type="textarea" hint="One NAME=VALUE on each line. Repeated in every event." />
        <${Field} form=${form} name="ignore_paths" label="Ignored fields" type="textarea"
          hint="One path on each line, such as custom_fields or revisions.description. Their changes are not reported." />
      </div>
      <${Field} form=${form} name="track_remote_data" label="Report changes of the raw data" type="checkbox"
        hint="remote_data: the record as the learning system sent it." />
    </div></details>
    <details><summary>Guards: the limits above which the changes of one poll are held</summary>
      <div class="columns">${GUARDS.map(([name, label, hint]) => html`<${Field} form=${form}
        name=${`guards.${name}`} label=${label} hint=${hint} type="number" step="any" min="0" />`)}</div>
    </details>`;
}
