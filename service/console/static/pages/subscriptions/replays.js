// Sends events of the past again, and follows how far that has come.
import { html, useState } from "../../vendor/standalone.module.js";
import { get, path, send } from "../../api.js";
import { url, useQuery } from "../../router.js";
import { Confirm, Dialog, notify } from "../../ui/dialog.js";
import { Field, Form, useForm } from "../../ui/form.js";
import { useLoad } from "../../ui/load.js";
import { nameOf } from "../../ui/names.js";
import { Card, Progress } from "../../ui/page.js";
import { Loaded } from "../../ui/problem.js";
import { Pager } from "../../ui/table.js";
import { Chips, count, Empty, Id, number, State, Text, Time } from "../../ui/text.js";
import { Choices, EVENT_TYPE_GROUPS } from "./form.js";
import { maySubscribe } from "./list.js";

const KINDS = {
  all: ["All events that match", "Every event that is kept and matches the subscription now."],
  dead: ["Dead deliveries", "Deliveries that became dead letters."],
  missing: ["Missing events", "Matching events that are not pending and have no recorded delivery."],
  backfill: ["Backfill of all live courses", "Every live course, requested from the upstream and sent as course.created."],
  event: ["One event", ""],
};
const unfinished = (one) => one.state === "queued" || one.state === "running";

export function Replays({ one }) {
  const [query] = useQuery();
  const [starting, setStarting] = useState(false);
  const [cancelled, setCancelled] = useState(null);
  const after = query.get("after");
  const list = useLoad((signal) => get(path`/v1/subscriptions/${one.id}/replays`, { after, limit: 50 }, signal), [one.id, after], { every: 1 });
  const start = maySubscribe() && html`<button class="primary" onClick=${() => setStarting(true)}>Start a replay</button>`;
  return html`
    ${start && html`<div class="filters">${start}</div>`}
    <${Loaded} of=${list}>${(page) => html`
      ${page.items.length
        ? [...page.items].reverse().map((replay) => html`<${Replay} key=${replay.id} replay=${replay} cancel=${() => setCancelled(replay)} />`)
        : html`<${Empty} title="There are no replays.">A replay sends events of the past again: what died while the receiver
            was broken, what it lost, or every live course for a new receiver.<//>`}
      <${Pager} page=${page} />`}<//>
    ${starting && html`<${Start} one=${one} onClose=${() => setStarting(false)} reload=${list.reload} />`}
    ${cancelled && html`<${Confirm} title="Cancel the replay to ${nameOf(one)}?" action="Cancel the replay" danger onClose=${() => setCancelled(null)}
      onConfirm=${async () => {
        await send("DELETE", path`/v1/subscriptions/${one.id}/replays/${cancelled.id}`);
        notify("The replay is cancelled.");
        list.reload();
      }}><p>Events that the replay has not delivered yet are dropped. Delivered events stay delivered.</p><//>`}`;
}

function Replay({ replay, cancel }) {
  const [title] = KINDS[replay.which] ?? [replay.which];
  const ended = replay.delivered + replay.dead;
  const label = [`${number(replay.scanned)} looked at`, `${number(replay.queued)} to be sent`, `${number(replay.delivered)} delivered`,
    replay.dead && `${number(replay.dead)} dead`, replay.left_out && `${count(replay.left_out, "course")} left out`].filter(Boolean).join(", ");
  const finished = replay.state === "completed";
  return html`<${Card} class="replay" title=${html`${title} <${State} state=${replay.state} />`}
    actions=${unfinished(replay) && maySubscribe() && html`<button class="danger small" onClick=${cancel}>Cancel</button>`}>
    <div class="stack">
      <${Progress} label=${label} value=${finished ? 1 : ended} max=${finished ? 1 : replay.queued || (unfinished(replay) ? 0 : 1)} />
      ${replay.error && html`<p class="bad"><${Text} value=${replay.error} /></p>`}
      <p class="muted row"><span>Started <${Time} at=${replay.started_at ?? replay.created_at} /></span>
        ${replay.finished_at && html`<span>ended <${Time} at=${replay.finished_at} /></span>`}
        ${replay.since && html`<span>events since <${Time} at=${replay.since} /></span>`}
        ${replay.until && html`<span>events before <${Time} at=${replay.until} /></span>`}
        ${replay.event_types && html`<${Chips} items=${replay.event_types} />`}
        ${replay.event_id && html`<a href=${url("events", replay.event_id)}>the event</a>`}
        <${Id} id=${replay.id} /></p>
    </div>
  <//>`;
}

function Start({ one, onClose, reload }) {
  const form = useForm({ which: "all", since: "", until: "", event_types: [] });
  const { which } = form.values;
  const time = (text) => (text ? new Date(text).toJSON() : null);
  const start = async (values) => {
    const choice = which === "backfill" ? {} : {
      since: time(values.since), until: time(values.until), event_types: values.event_types.length ? values.event_types : null };
    await send("POST", path`/v1/subscriptions/${one.id}/replays`, { body: { which, ...choice } });
    notify("The replay is queued.");
    reload();
    onClose();
  };
  return html`<${Dialog} title="Start a replay to ${nameOf(one)}" onClose=${onClose} wide>
    <${Form} form=${form} onSubmit=${start} action="Start" onCancel=${onClose}>
      <${Field} form=${form} name="which" label="What is sent" type="select" hint=${KINDS[which][1]}
        options=${Object.entries(KINDS).filter(([kind]) => kind !== "event").map(([kind, [title]]) => [kind, title])} />
      ${which !== "backfill" && html`
        <div class="columns">
          <${Field} form=${form} name="since" label="Events since" type="datetime-local" hint="In your own time. Empty: all that are kept." />
          <${Field} form=${form} name="until" label="Events before" type="datetime-local" hint="In your own time. Empty: up to now." />
        </div>
        <${Choices} form=${form} name="event_types" legend="Event types" groups=${EVENT_TYPE_GROUPS} hint="None chosen: all that match." />`}
      <p class="muted">Events keep their ids and are marked with <code>coursewire-replay: true</code>. New events are preferred.</p>
    <//>
  <//>`;
}
