// Lists deliveries with their attempts: all, those of a subscription, those of an event.
import { html, useState } from "../../vendor/standalone.module.js";
import { get, path, send } from "../../api.js";
import { url, useQuery } from "../../router.js";
import { notify } from "../../ui/dialog.js";
import { useLoad } from "../../ui/load.js";
import { Name } from "../../ui/names.js";
import { Page } from "../../ui/page.js";
import { Loaded, ProblemBox } from "../../ui/problem.js";
import { Choice, Pager, emptyPage } from "../../ui/table.js";
import { count, Empty, Id, Json, State, Text, Time } from "../../ui/text.js";
import { Attempts, outcomeText } from "./attempts.js";
import { EVENT_TYPES } from "./form.js";
import { maySubscribe } from "./list.js";

const STATES = [["", "All states"], ["pending,retrying", "Not delivered yet"], ["retrying", "Retrying"], ["delivered", "Delivered"], ["dead", "Dead"]];
const OUTCOMES = [["", "All outcomes"], ["delivered", "Delivered"], ["status", "Refused with a status"], ["timeout", "Timed out"],
  ["dns", "Host not found"], ["connect", "No connection"], ["tls", "TLS failed"], ["reset", "Connection broken"], ["protocol", "Not HTTP"]];

const TYPES = [["", "All event types"], ...EVENT_TYPES.map((type) => [type, type])];
const RANGES = [["", "Any time"], ["1", "Events of the last hour"], ["24", "Events of the last day"], ["168", "Events of the last week"]]; // hours

export const Deliveries = () => html`<${Page} title="Deliveries" doc="catching-up"><${FilteredDeliveries} /><//>`;

// Deliveries to one subscription or to all, with filters that stand in the address.
export function FilteredDeliveries({ id }) {
  const [query] = useQuery();
  const [state, outcome, event_type, hours, after] = ["state", "outcome", "event_type", "hours", "after"].map((name) => query.get(name));
  const list = useLoad((signal) => {
    const since = Number(hours) ? new Date(Date.now() - hours * 3_600_000).toJSON() : null;
    return get("/v1/deliveries", { subscription_id: id, state, outcome, event_type, since, after, limit: 25 }, signal);
  }, [id, query.toString()], { every: after ? 0 : 3 });
  const empty = state || outcome || event_type || hours
    ? html`<${Empty} title="No delivery matches.">Change the filters.<//>`
    : html`<${Empty} title="Nothing has been delivered yet." action=${!id && html`<a class="button" href=${url("subscriptions")}>Subscriptions</a>`}>
        ${id ? "Send a test event: it tries the receiver at once." : "Create a subscription, then send a test event from its page."}
        ${" "}Deliveries appear here as soon as an event matches ${id ? "the subscription" : "a subscription"}.<//>`;
  return html`
    <div class="filters" role="search">
      <${Choice} name="state" label="State" options=${STATES} /><${Choice} name="outcome" label="Outcome of the last attempt" options=${OUTCOMES} />
      <${Choice} name="event_type" label="Event type" options=${TYPES} /><${Choice} name="hours" label="Time of the event" options=${RANGES} />
    </div>
    <${Loaded} of=${list}>${(page) => html`
      <${List} items=${page.items} event receiver=${!id} empty=${emptyPage(page, empty)} reload=${list.reload} />
      <${Pager} page=${page} />`}<//>`;
}

// Who received an event, and when.
export function EventDeliveries({ eventId }) {
  const list = useLoad((signal) => get("/v1/deliveries", { event_id: eventId, limit: 100 }, signal), [eventId], { every: 3 });
  return html`<${Loaded} of=${list}>${(page) => html`<${List} items=${page.items} receiver reload=${list.reload}
    empty=${html`<p class="muted">No subscription has received this event, or its attempts are no longer kept.</p>`} />
    ${page.next && html`<p class="muted more">These are the first ${count(page.items.length, "delivery", "deliveries")}.</p>`}`}<//>`;
}

// `event` and `receiver`: which of them the rows name.
const List = ({ items, empty, ...rest }) =>
  items.length
    ? html`<ul class="deliveries">${items.map((one) => html`<${Delivery} key=${one.subscription_id + one.event_id} one=${one} ...${rest} />`)}</ul>`
    : empty;

const NextAttempt = ({ at, replay }) => new Date(at) > Date.now()
  ? html`${replay ? "replay" : "next"} <${Time} at=${at} ago />` : replay ? "replay due" : "due";

function Delivery({ one, event, receiver, reload }) {
  const [open, setOpen] = useState(false);
  const last = one.attempts.at(-1);
  return html`<li><details onToggle=${(event) => setOpen(event.target.open)}>
    <summary class="delivery">
      <${State} state=${one.state} />
      <span class="what">
        ${event && html`<div>${one.event_type ?? "event"} <span class="muted">${one.course_id || !one.integration_id ? html`<${Text} value=${one.course_id} fallback="" mono />` : html`<${Name} what="integrations" id=${one.integration_id} />`}</span></div>`}
        ${receiver && html`<div class=${event ? "muted" : ""}><${Name} what="subscriptions" id=${one.subscription_id} /></div>`}</span>
      <span class="muted">${one.attempts.length > 0 && html`${count(one.attempts.length, "attempt")}, ${outcomeText(last)}`}</span>
      <span class="when">${one.next_attempt_at ? html`<${NextAttempt} at=${one.next_attempt_at} replay=${one.state === "delivered"} />` : html`<${Time} at=${last?.at} ago fallback="waiting" />`}</span>
    </summary>
    ${open && html`<${Details} one=${one} event=${event} receiver=${receiver} reload=${reload} />`}
  </details></li>`;
}

function Body({ id }) {
  const shown = useLoad((signal) => get(path`/v1/events/${id}`, {}, signal), [id]);
  return html`<${Loaded} of=${shown}>${(event) => html`<${Json} value=${event} />`}<//>`;
}

function Details({ one, event, receiver, reload }) {
  const [problem, setProblem] = useState(null);
  const [body, setBody] = useState(false);
  const ask = async (to, body, said) => {
    try {
      await send("POST", to, { body });
      setProblem(null);
      notify(said);
      reload();
    } catch (found) {
      setProblem(found);
    }
  };
  const again = () => ask(path`/v1/events/${one.event_id}/redeliver`, { subscription_id: one.subscription_id }, "The event is sent again.");
  const retry = () => ask(path`/v1/subscriptions/${one.subscription_id}/retry`, { event_id: one.event_id }, "The retry is due now.");
  return html`<div class="stack">
    <p class="row">
      ${event && html`<a href=${url("events", one.event_id)}>The event</a> <${Id} id=${one.event_id} />`}
      ${receiver && html`<a href=${url("subscriptions", one.subscription_id)}>The subscription</a> <${Id} id=${one.subscription_id} />`}
      ${maySubscribe() && one.state === "retrying" && html`<button class="small" onClick=${retry}>Retry now</button>`}
      ${maySubscribe() && html`<button class="small" onClick=${again}>Redeliver</button>`}</p>
    <${ProblemBox} problem=${problem} />
    ${one.reason && html`<p class="bad">Given up: <${Text} value=${one.reason} /></p>`}
    ${one.next_attempt_at && html`<p>The next attempt ${new Date(one.next_attempt_at) > Date.now() ? "is" : "was"} due at <${Time} at=${one.next_attempt_at} />.</p>`}
    ${one.attempts.length ? html`<${Attempts} attempts=${one.attempts} />` : html`<p class="muted">No attempt has been made yet.</p>`}
    ${event && html`<details onToggle=${(toggled) => setBody(toggled.target.open)}><summary>The event's body</summary>${body && html`<${Body} id=${one.event_id} />`}</details>`}
  </div>`;
}
