// Lists deliveries of a subscription, or of an event, with their attempts.
import { html, useState } from "../../vendor/standalone.module.js";
import { get, path, send } from "../../api.js";
import { url, useQuery } from "../../router.js";
import { notify } from "../../ui/dialog.js";
import { useLoad } from "../../ui/load.js";
import { Loaded, ProblemBox } from "../../ui/problem.js";
import { Choice, Pager } from "../../ui/table.js";
import { count, Empty, Id, State, Text, Time } from "../../ui/text.js";
import { Attempts, outcomeText } from "./attempts.js";
import { maySubscribe } from "./list.js";

const STATES = [["", "All states"], ["pending,retrying", "Not delivered yet"], ["retrying", "Retrying"], ["delivered", "Delivered"], ["dead", "Dead"]];
const OUTCOMES = [["", "All outcomes"], ["delivered", "Delivered"], ["status", "Refused with a status"], ["timeout", "Timed out"],
  ["dns", "Host not found"], ["connect", "No connection"], ["tls", "TLS failed"], ["reset", "Connection broken"], ["protocol", "Not HTTP"]];

// Deliveries to a subscription, with filters that stand in the address.
export function SubscriptionDeliveries({ id }) {
  const [query] = useQuery();
  const filter = { state: query.get("state"), outcome: query.get("outcome") };
  const list = useLoad((signal) => get("/v1/deliveries", { subscription_id: id, ...filter, after: query.get("after"), limit: 25 }, signal),
    [id, query.toString()], { every: query.get("after") ? 0 : 3 });
  const empty = filter.state || filter.outcome
    ? html`<${Empty} title="No delivery matches.">Change the state or the outcome.</${Empty}>`
    : html`<${Empty} title="Nothing has been delivered yet." action=${html`<a class="button" href=${url("events")}>Watch events</a>`}>
        Deliveries appear here as soon as an event matches. Send a test event to try the receiver now.</${Empty}>`;
  return html`
    <div class="filters" role="search">
      <${Choice} name="state" label="State" options=${STATES} /><${Choice} name="outcome" label="Outcome of the last attempt" options=${OUTCOMES} />
    </div>
    <${Loaded} of=${list}>${(page) => html`
      <${Deliveries} items=${page.items} empty=${page.next ? html`<p class="muted">No match among the deliveries looked at. The next page looks further.</p>` : empty} reload=${list.reload} />
      <${Pager} page=${page} />`}</${Loaded}>`;
}

// Who received an event, and when.
export function EventDeliveries({ eventId }) {
  const list = useLoad((signal) => get("/v1/deliveries", { event_id: eventId, limit: 100 }, signal), [eventId], { every: 3 });
  return html`<${Loaded} of=${list}>${(page) => html`<${Deliveries} items=${page.items} bySubscription reload=${list.reload}
    empty=${html`<p class="muted">No subscription has received this event, or its attempts are no longer kept.</p>`} />
    ${page.next && html`<p class="muted more">These are the first ${count(page.items.length, "delivery", "deliveries")}.</p>`}`}</${Loaded}>`;
}

const Deliveries = ({ items, empty, bySubscription, reload }) =>
  items.length
    ? html`<ul class="deliveries">${items.map((one) => html`<${Delivery} key=${one.subscription_id + one.event_id}
        one=${one} bySubscription=${bySubscription} reload=${reload} />`)}</ul>`
    : empty;

const names = new Map(); // of subscriptions, so that each is asked for once

function Receiver({ id }) {
  const { data } = useLoad(async (signal) => {
    if (!names.has(id)) names.set(id, await get(path`/v1/subscriptions/${id}`, {}, signal).then((one) => one.description || one.url));
    return names.get(id);
  }, [id]);
  return html`<${Text} value=${data ?? id} />`;
}

const NextAttempt = ({ at }) => (new Date(at) > Date.now() ? html`next <${Time} at=${at} ago />` : "due");

function Delivery({ one, bySubscription, reload }) {
  const [open, setOpen] = useState(false);
  const last = one.attempts.at(-1);
  return html`<li><details onToggle=${(event) => setOpen(event.target.open)}>
    <summary>
      <${State} state=${one.state} />
      <span class="what">${bySubscription ? html`<${Receiver} id=${one.subscription_id} />`
        : html`${one.event_type ?? "event"} <span class="muted"><${Text} value=${one.course_id ?? one.integration_id} fallback="" mono /></span>`}</span>
      <span class="muted">${one.attempts.length > 0 && html`${count(one.attempts.length, "attempt")}, ${outcomeText(last)}`}</span>
      <span class="when">${one.next_attempt_at ? html`<${NextAttempt} at=${one.next_attempt_at} />` : html`<${Time} at=${last?.at} ago fallback="waiting" />`}</span>
    </summary>
    ${open && html`<${Details} one=${one} bySubscription=${bySubscription} reload=${reload} />`}
  </details></li>`;
}

function Details({ one, bySubscription, reload }) {
  const [problem, setProblem] = useState(null);
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
  const again = () => ask(path`/v1/events/${one.event_id}/redeliver`, { subscription_id: one.subscription_id }, "The event is sent once more.");
  const retry = () => ask(path`/v1/subscriptions/${one.subscription_id}/retry`, { event_id: one.event_id }, "The retry is due now.");
  return html`<div class="stack">
    <p class="row">${bySubscription
        ? html`<a href=${url("subscriptions", one.subscription_id)}>The subscription</a>`
        : html`<a href=${url("events", one.event_id)}>The event</a>`}
      <${Id} id=${bySubscription ? one.subscription_id : one.event_id} />
      ${maySubscribe() && one.state === "retrying" && html`<button type="button" class="small" onClick=${retry}>Retry now</button>`}
      ${maySubscribe() && html`<button type="button" class="small" onClick=${again}>Redeliver</button>`}</p>
    <${ProblemBox} problem=${problem} />
    ${one.reason && html`<p class="bad">Given up: <${Text} value=${one.reason} /></p>`}
    ${one.next_attempt_at && html`<p>The next attempt ${new Date(one.next_attempt_at) > Date.now() ? "is" : "was"} due at <${Time} at=${one.next_attempt_at} />.</p>`}
    ${one.attempts.length ? html`<${Attempts} attempts=${one.attempts} />` : html`<p class="muted">No attempt has been made yet.</p>`}
  </div>`;
}
