// What a person can do with a subscription.
import { html, useState } from "../../vendor/standalone.module.js";
import { path, send } from "../../api.js";
import { navigate, url } from "../../router.js";
import { Confirm, Dialog, notify } from "../../ui/dialog.js";
import { changedFields, Field, Form, useForm } from "../../ui/form.js";
import { useLoad } from "../../ui/load.js";
import { nameOf } from "../../ui/names.js";
import { Loaded } from "../../ui/problem.js";
import { Code, count, Time } from "../../ui/text.js";
import { Attempt } from "./attempts.js";
import { bodyOf, initialValues, SubscriptionFields } from "./form.js";
import { Receivers } from "./receivers.js";

export function TestButton({ one, primary = false }) {
  const [open, setOpen] = useState(false);
  return html`<button class=${primary ? "primary" : ""} onClick=${() => setOpen(true)}>Send a test event</button>
    ${open && html`<${Test} one=${one} onClose=${() => setOpen(false)} />`}`;
}

function Test({ one, onClose }) {
  const result = useLoad(async (signal) => (await send("POST", path`/v1/subscriptions/${one.id}/test`, { signal })).data, [one.id]);
  return html`<${Dialog} title="Test of ${nameOf(one)}" onClose=${onClose}>
    <${Loaded} of=${result}>${(attempt) => html`
      ${attempt.outcome === "delivered"
        ? html`<p class="notice good" role="status">The receiver accepted a signed <code>coursewire.test</code>.</p>`
        : html`<p class="notice" role="status">The receiver did not accept the test event. Test events are not retried.</p>`}
      <${Attempt} attempt=${attempt} />`}<//>
    <footer><button disabled=${result.busy} onClick=${result.reload}>Send again</button>
      <button class="primary" onClick=${onClose}>Close</button></footer>
  <//>`;
}

export function Actions({ one, etag, reload }) {
  const [open, setOpen] = useState(null);
  const close = () => setOpen(null);
  const name = nameOf(one);
  const done = (text) => {
    notify(text);
    reload();
  };
  return html`
    <${TestButton} one=${one} />
    ${one.state === "active"
      ? html`<button onClick=${() => setOpen("pause")}>Pause</button>`
      : html`<button class="primary" onClick=${() => setOpen("resume")}>Resume</button>`}
    <button onClick=${() => setOpen("edit")}>Edit</button>
    <button onClick=${() => setOpen("rotate")}>Rotate secret</button>
    ${one.pending > 0 && ["active", "parked"].includes(one.state) && html`<button onClick=${() => setOpen("retry")}>Retry now</button>`}
    ${one.pending > 0 && html`<button class="danger" onClick=${() => setOpen("skip")}>Skip pending</button>`}
    <button class="danger" onClick=${() => setOpen("delete")}>Delete</button>
    ${open === "edit" && html`<${Edit} one=${one} etag=${etag} onClose=${close} done=${done} />`}
    ${open === "rotate" && html`<${Rotate} one=${one} onClose=${close} done=${done} />`}
    ${open === "skip" && html`<${Skip} one=${one} onClose=${close} done=${done} />`}
    ${open === "retry" && html`<${Confirm} title="Retry the failed deliveries of ${name}?" action="Retry now" onClose=${close}
      onConfirm=${async () => {
        const { data } = await send("POST", path`/v1/subscriptions/${one.id}/retry`, { body: {} });
        done(`${count(data.retried, "retry is", "retries are")} due now.`);
      }}><p>${one.state === "parked" ? "One probe is sent immediately. The other events follow when the probe succeeds." : "Scheduled retries become due immediately."}
        ${" "}Each attempt counts.</p><//>`}
    ${open === "pause" && html`<${Confirm} title="Pause ${name}?" action="Pause" onClose=${close} onStale=${reload}
      onConfirm=${async () => {
        await send("PATCH", path`/v1/subscriptions/${one.id}`, { body: { paused: true }, etag });
        done("The subscription is paused.");
      }}><p>Sending stops until you resume the subscription. Events are queued meanwhile.</p><//>`}
    ${open === "resume" && html`<${Confirm} title="Resume ${name}?" action="Resume" onClose=${close}
      onConfirm=${async () => {
        await send("POST", path`/v1/subscriptions/${one.id}/resume`);
        done("The subscription is active.");
      }}><p>${count(one.pending, "pending event")} ${one.pending === 1 ? "is" : "are"} due at once, retries included.</p><//>`}
    ${open === "delete" && html`<${Confirm} title="Delete ${name}?" action="Delete" danger onClose=${close} onStale=${reload}
      onConfirm=${async () => {
        await send("DELETE", path`/v1/subscriptions/${one.id}`, { etag });
        notify(`${name} is deleted.`);
        navigate(url("subscriptions"));
      }}><p>Nothing more is sent to its URL. Its ${count(one.pending, "pending event")}, its attempts and its replays are discarded.</p><//>`}`;
}

function Edit({ one: latest, etag, onClose, done }) {
  // As it was when the form was opened: what somebody else saves meanwhile is not overwritten.
  const [{ one, tag }] = useState({ one: latest, tag: etag });
  const form = useForm(initialValues(one));
  const save = async (values) => {
    const body = changedFields(bodyOf(initialValues(one)), bodyOf(values));
    await send("PATCH", path`/v1/subscriptions/${one.id}`, { body, etag: tag });
    done("The subscription is saved.");
    onClose();
  };
  return html`<${Dialog} title="Edit ${nameOf(one)}" onClose=${onClose} wide>
    <${Form} form=${form} onSubmit=${save} action="Save" onCancel=${onClose}><${SubscriptionFields} form=${form} one=${one} /><//>
  <//>`;
}

const OVERLAPS = [["86400", "for a day"], ["3600", "for an hour"], ["604800", "for a week"], ["0", "not at all: revoked at once"]];

function Rotate({ one, onClose, done }) {
  const form = useForm({ overlap_seconds: OVERLAPS[0][0], secret: "" });
  const [made, setMade] = useState(null);
  const rotate = async (values) => {
    const { data } = await send("POST", path`/v1/subscriptions/${one.id}/secret/rotate`, {
      body: { overlap_seconds: Number(values.overlap_seconds), ...(values.secret.trim() && { secret: values.secret.trim() }) } });
    setMade(data);
    done("The secret is rotated.");
  };
  if (made) return html`<${Dialog} title="The new ${made.secret ? "secret" : "public key"} of ${nameOf(one)}" onClose=${onClose} wide>
    <p>Give it to the receiver now. ${made.previous.length > 0
      ? html`The previous secret continues to sign until <${Time} at=${made.previous[0].expires_at} />.` : "The previous secret no longer signs."}</p>
    <${Code} text=${made.secret ?? made.public_key} label=${made.secret ? "Secret" : "Public key"} />
    <details><summary>A receiver with it</summary><${Receivers} one=${{ ...one, ...made }} secret=${made.secret} /></details>
    <footer><button class="primary" onClick=${onClose}>I have copied it</button></footer>
  <//>`;
  return html`<${Dialog} title="Rotate the secret of ${nameOf(one)}" onClose=${onClose}>
    <p>While both secrets sign, each push carries a signature of each, so the receiver can switch at any time in that period.</p>
    <${Form} form=${form} onSubmit=${rotate} action="Rotate" onCancel=${onClose}>
      <${Field} form=${form} name="overlap_seconds" label="The previous secret continues to sign" type="select" options=${OVERLAPS} />
      <details><summary>A secret of your own</summary>
        <${Field} form=${form} name="secret" label="Secret" type="password" autocomplete="off" hint="whsec_ or whsk_ and base64. Empty: one is generated." /></details>
    <//>
  <//>`;
}

function Skip({ one, onClose, done }) {
  const form = useForm({ until: "" });
  const skip = async (values) => {
    const { data } = await send("POST", path`/v1/subscriptions/${one.id}/skip`, { body: values.until ? { until: new Date(values.until).toJSON() } : {} });
    done(`${count(data.skipped, "event")} skipped, ${data.pending} still pending.`);
    onClose();
  };
  return html`<${Dialog} title="Skip the pending deliveries of ${nameOf(one)}?" onClose=${onClose}>
    <p>${count(one.pending, "event")} not delivered yet. Skipped events are never sent and not listed as dead. A replay
      of missing events brings them back while they are kept.</p>
    <${Form} form=${form} onSubmit=${skip} action="Skip" danger onCancel=${onClose}>
      <${Field} form=${form} name="until" label="Only events up to" type="datetime-local" hint="In your own time. Empty: all that are pending." />
    <//>
  <//>`;
}
