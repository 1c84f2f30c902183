// API keys, whose tokens are shown once, and the audit trail.
import { html, useState } from "../vendor/standalone.module.js";
import { get, path, send } from "../api.js";
import { useQuery } from "../router.js";
import { isAdmin } from "../session.js";
import { Confirm, Dialog, notify } from "../ui/dialog.js";
import { changedFields, Field, Form, labelsText, readLabels, readList, useForm } from "../ui/form.js";
import { useLoad } from "../ui/load.js";
import { Name } from "../ui/names.js";
import { Page } from "../ui/page.js";
import { Loaded, ProblemBox } from "../ui/problem.js";
import { useScan } from "../ui/scan.js";
import { Pager, Search, Table, Tabs } from "../ui/table.js";
import { Chips, Code, count, Empty, Labels, Text, Time } from "../ui/text.js";

const SCOPES = [
  ["subscriber", "subscriber: its own subscriptions and the events granted to it"],
  ["read", "read: everything but secrets and the audit trail"],
  ["admin", "admin: everything"],
  ["metrics", "metrics: /metrics and /v1/me"],
];

export function Access({ tab }) {
  const [made, setMade] = useState(null);
  const [creating, setCreating] = useState(false);
  const [changes, setChanges] = useState(0);
  const done = (key) => {
    setChanges(changes + 1);
    if (key?.token) setMade(key);
  };
  const audit = tab === "audit" && isAdmin();
  return html`<${Page} title=${audit ? "Audit trail" : "API keys"} doc="access"
    actions=${isAdmin() && !audit && html`<button class="primary" onClick=${() => setCreating(true)}>Create an API key</button>`}>
    ${isAdmin() && html`<${Tabs} label="Access" tabs=${[[["access"], "API keys"], [["access", "audit"], "Audit trail"]]} />`}
    ${audit ? html`<${Audit} />` : html`<${Keys} changes=${changes} done=${done} create=${() => setCreating(true)} />`}
    ${creating && html`<${Create} onClose=${() => setCreating(false)} done=${done} />`}
    ${made && html`<${Dialog} title="The token of ${made.name}" onClose=${() => setMade(null)}>
      <p>Copy the token now. It is not shown again.</p>
      <${Code} text=${made.token} label="Token" />
      <footer><button class="primary" onClick=${() => setMade(null)}>I have copied it</button></footer>
    <//>`}
  <//>`;
}

const grants = (key) => html`${key.integration_ids && html`<${Chips} items=${key.integration_ids.map((id) => html`<${Name} what="integrations" id=${id} />`)} />`}
  ${" "}${key.labels && html`<${Labels} labels=${key.labels} />`}
  ${!key.integration_ids && !key.labels && html`<span class="muted">${key.scope === "subscriber" ? "no events" : "all"}</span>`}`;

function Keys({ changes, done, create }) {
  const [query] = useQuery();
  const [open, setOpen] = useState(null); // [what, key]
  const close = () => setOpen(null);
  const list = useLoad((signal) => get("/v1/api-keys", { after: query.get("after"), limit: 50 }, signal), [query.toString(), changes]);
  const columns = [
    { title: "Name", cell: (key) => html`<span class="strong"><${Text} value=${key.name} /></span> <div class="muted"><code>${key.prefix}…</code></div>` },
    { title: "Scope", cell: (key) => html`<span class="chip">${key.scope}</span>` },
    { title: "Sees events of", cell: grants },
    { title: "Last used", cell: (key) => html`<${Time} at=${key.last_used_at} ago fallback="never" />` },
    { title: "Expires", cell: (key) => html`<${Time} at=${key.expires_at} fallback="never" />
        ${key.previous_token_expires_at && html`<div class="muted">The token before ends <${Time} at=${key.previous_token_expires_at} /></div>`}` },
    { title: "Created", cell: (key) => html`<${Time} at=${key.created_at} />` },
    isAdmin() && { title: "Actions", cell: (key) => html`<span class="row">
        ${[["edit", "Edit", ""], ["rotate", "New token", ""], ["revoke", "Revoke", "danger"]].map(([what, text, style]) => html`<button
          class="small ${style}" aria-label="${text}: ${key.name}" onClick=${() => setOpen([what, key])}>${text}</button>`)}</span>` },
  ].filter(Boolean);
  const [what, key] = open ?? [];
  return html`<${Loaded} of=${list}>${(page) => html`
      <${Table} caption="API keys" columns=${columns} rows=${page.items} busy=${list.busy}
        empty=${html`<${Empty} title="There are no API keys." action=${isAdmin() && html`<button class="primary" onClick=${create}>Create an API key</button>`}>
          Give each program and each person a key of their own instead of the admin token. A key has one scope,
          and can be revoked without disturbing the others.<//>`} />
      <${Pager} page=${page} />`}<//>
    ${what === "edit" && html`<${Edit} of=${key} onClose=${close} done=${done} />`}
    ${what === "rotate" && html`<${Rotate} of=${key} onClose=${close} done=${done} />`}
    ${what === "revoke" && html`<${Confirm} title="Revoke ${key.name}?" action="Revoke" danger onClose=${close}
      onConfirm=${async () => {
        await send("DELETE", path`/v1/api-keys/${key.id}`);
        notify(`${key.name} is revoked.`);
        done();
      }}>
      <p>Its token stops working within a second.${key.scope === "subscriber" ? " Its subscriptions stay, but course events are no longer sent to them." : ""}</p><//>`}`;
}

const OVERLAPS = [["0", "at once"], ["3600", "in an hour"], ["86400", "in a day"], ["604800", "in a week"]];

function Rotate({ of: key, onClose, done }) {
  const form = useForm({ overlap_seconds: "0" });
  const rotate = async (values) => {
    const body = { overlap_seconds: Number(values.overlap_seconds) };
    const { data } = await send("POST", path`/v1/api-keys/${key.id}/token/rotate`, { body });
    onClose();
    done(data);
  };
  return html`<${Dialog} title="Create a new token for ${key.name}?" onClose=${onClose}>
    <p>The new token is shown once. The key keeps its subscriptions and its grant.</p>
    <${Form} form=${form} onSubmit=${rotate} action="Create a new token" danger onCancel=${onClose}>
      <${Field} form=${form} name="overlap_seconds" label="The current token expires" type="select" options=${OVERLAPS} />
    <//>
  <//>`;
}

const KeyFields = ({ form, scope }) => html`
  <${Field} form=${form} name="name" label="Name" hint="The person or system that uses the key." />
  ${scope === "subscriber" && html`<fieldset><legend>Course events that it may see</legend>
    <${Field} form=${form} name="integration_ids" label="Integrations" type="textarea" hint="One id on each line." />
    <${Field} form=${form} name="labels" label="Labels" type="textarea"
      hint="One NAME=VALUE on each line: events of integrations that carry all of them, besides those above." />
  </fieldset>`}
  <${Field} form=${form} name="expires_at" label="Expires" type="datetime-local" hint="In your own time. Empty: never." />`;

const localTime = (at) => {
  if (!at) return "";
  const date = new Date(at);
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
};

function body(values, scope) {
  const ids = readList(values.integration_ids);
  const labels = readLabels(values.labels);
  return {
    name: values.name,
    expires_at: values.expires_at ? new Date(values.expires_at).toISOString() : null,
    ...(scope === "subscriber" && {
      integration_ids: ids.length ? ids : null,
      labels: Object.keys(labels).length ? labels : null,
    }),
  };
}

function Create({ onClose, done }) {
  const form = useForm({ name: "", scope: "subscriber", integration_ids: "", labels: "", expires_at: "" });
  const create = async (values) => {
    const { data } = await send("POST", "/v1/api-keys", { body: { scope: values.scope, ...body(values, values.scope) } });
    onClose();
    done(data);
  };
  return html`<${Dialog} title="Create an API key" onClose=${onClose}>
    <${Form} form=${form} onSubmit=${create} action="Create" onCancel=${onClose}>
      <${Field} form=${form} name="scope" label="Scope" type="select" options=${SCOPES} />
      <${KeyFields} form=${form} scope=${form.values.scope} />
    <//>
  <//>`;
}

function Edit({ of: key, onClose, done }) {
  const initial = {
    name: key.name,
    integration_ids: (key.integration_ids ?? []).join("\n"),
    labels: labelsText(key.labels),
    expires_at: localTime(key.expires_at),
  };
  const form = useForm(initial);
  const save = async (values) => {
    await send("PATCH", path`/v1/api-keys/${key.id}`, { body: changedFields(body(initial, key.scope), body(values, key.scope)) });
    notify(`${values.name} is saved.`);
    onClose();
    done();
  };
  return html`<${Dialog} title="Edit ${key.name}" onClose=${onClose}>
    <${Form} form=${form} onSubmit=${save} action="Save" onCancel=${onClose}><${KeyFields} form=${form} scope=${key.scope} /><//>
  <//>`;
}

const ENTRIES = [
  { title: "When", cell: (one) => html`<${Time} at=${one.at} />` },
  { title: "Who", cell: (one) => html`<${Text} value=${one.actor} fallback="unknown" />` },
  { title: "Action", cell: (one) => html`<span class="strong"><${Text} value=${one.action} /></span>
      <div class="muted"><${Text} value=${one.object_id} fallback="" mono /></div>` },
  { title: "Fields", cell: (one) => html`<${Chips} items=${one.fields} none="" />` },
  { title: "Request", cell: (one) => html`<${Text} value=${one.request_id} mono /> <div class="muted">from <${Text} value=${one.address} mono /></div>` },
];

function Audit() {
  const [query] = useQuery();
  const [actor, action, object] = ["actor", "action", "object"].map((name) => query.get(name)?.toLowerCase() ?? "");
  const has = (text, wanted) => !wanted || (text ?? "").toLowerCase().includes(wanted);
  const matches = (one) => has(one.actor, actor) && has(one.action, action) && (has(one.object_id, object) || has(one.request_id, object));
  const scan = useScan("/v1/audit", {}, matches, [actor, action, object]);
  return html`
    <div class="filters" role="search">
      <${Search} name="actor" label="Who" /><${Search} name="action" label="Action" /><${Search} name="object" label="Id or request" />
    </div>
    <${ProblemBox} problem=${scan.problem} retry=${scan.more} />
    ${(scan.items.length > 0 || scan.done) && html`<${Table} caption="Audit trail" columns=${ENTRIES} rows=${scan.items} busy=${scan.busy}
      id=${(one) => `${one.at} ${one.request_id} ${one.action}`}
      empty=${html`<${Empty} title=${scan.seen ? "No entry matches." : "Nothing has been changed yet."}>Every change through the API is
        noted here, with who made it and the fields that were sent.<//>`} />`}
    ${scan.busy && html`<p class="muted" role="status">${count(scan.seen, "entry", "entries")} looked at</p>`}
    ${!scan.busy && !scan.done && html`<p class="more"><button onClick=${scan.more}>Show more</button></p>`}`;
}
