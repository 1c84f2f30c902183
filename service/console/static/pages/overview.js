// Says at a glance whether all is well, and what needs a person.
import { html } from "../vendor/standalone.module.js";
import { get } from "../api.js";
import { url } from "../router.js";
import { isAdmin } from "../session.js";
import { EventName, EventType } from "../ui/event.js";
import { useLoad } from "../ui/load.js";
import { Card, Page, Tile, Tiles } from "../ui/page.js";
import { Loaded } from "../ui/problem.js";
import { count, number, sentence, short, State, Text, Time } from "../ui/text.js";
import { Plots } from "./plots.js";

const REFRESH = 5; // seconds

export function Overview() {
  const status = useLoad((signal) => get("/v1/status", {}, signal), [], { every: REFRESH });
  return html`<${Page} title="Overview">
    <${Loaded} of=${status}>${(found) => html`
      <${Health} status=${found} />
      ${found.totals && html`<${Figures} status=${found} />`}
      ${found.totals && !(found.totals.integrations && found.totals.subscriptions) && html`<${FirstSteps} totals=${found.totals} />`}
      ${found.totals && found.totals.integrations + found.totals.subscriptions + found.totals.events > 0 && html`<${Plots} /><div class="grid"><${Attention} status=${found} /><${Latest} /></div>`}
    `}</${Loaded}>
  </${Page}>`;
}

const HEALTH = {
  ok: ["ok", "Everything works"],
  waiting: ["warn", "Coursewire runs, and some work waits for you"],
  degraded: ["warn", "Coursewire works in part"],
  down: ["bad", "Coursewire is down"],
};

// What waits for a person although the service runs: [how many, one, many, what to do, where].
const waiting = ({ integrations, subscriptions }) =>
  integrations
    ? [
        [integrations.error, "integration fails", "integrations fail", "Its page shows the cause and the remedy.", ["integrations", { state: "error" }]],
        [integrations.review, "integration has changes held for review", "integrations have changes held for review",
          "Publish them or accept them silently.", ["integrations", { state: "review" }]],
        [subscriptions.disabled, "subscription is disabled", "subscriptions are disabled", "Repair the receiver, then resume the subscription.", ["subscriptions", { state: "disabled" }]],
        [subscriptions.parked, "receiver fails steadily and is only probed", "receivers fail steadily and are only probed",
          "Repair the receiver. Pending events are then sent automatically.", ["subscriptions", { state: "parked" }]],
        [subscriptions.failing, "receiver failed its last attempt", "receivers failed their last attempts",
          "Coursewire tries again. Check the receiver's responses.", ["deliveries", { state: "retrying" }]],
      ].filter(([n]) => n)
    : [];

// What to do about a reason of /v1/status that does not say it itself.
const REMEDIES = [
  [/^no scheduler is running/, "Start one: coursewire scheduler."],
  [/^no scheduler has looked/, "Check the log of the scheduler, then restart it."],
  [/^no worker is running/, "Start one: coursewire worker."],
  [/has been paused since/, "Resume it on the System page when the reason for the pause no longer applies."],
  [/has been due since/, "There are too few workers, or they are stuck. Start more of them, or check their logs."],
  [/memory limit/, "Give Redis more memory, or shorten COURSEWIRE_EVENT_RETENTION_SECONDS."],
  [/does not answer/, "Check that Redis runs and that COURSEWIRE_REDIS_URL is its address."],
  [/still loading/, "Wait until Redis has loaded its data."],
];

export function Health({ status }) {
  const waits = waiting(status);
  const [tone, title] = HEALTH[status.status === "ok" && waits.length ? "waiting" : status.status];
  return html`<section class="health ${tone}" aria-label="Health">
    <div><h2>${title}</h2>
      ${tone === "ok"
        ? html`<p>${status.totals.integrations ? "Integrations are polled and events are delivered." : "All processes run. Nothing is registered yet."}</p>`
        : html`<ul>${status.reasons.map((reason) => html`<li><${Text} value=${sentence(reason)} />
            ${" "}${REMEDIES.find(([pattern]) => pattern.test(reason))?.[1] ?? ""}</li>`)}
          ${waits.map(([n, one, many, remedy, where]) => html`<li><a href=${url(...where)}>${count(n, one, many)}</a>. ${remedy}</li>`)}</ul>`}</div>
    <p class="muted">Version ${status.version}<br />Checked <${Time} at=${status.time} ago /></p>
  </section>`;
}

function Figures({ status: { integrations, subscriptions, totals } }) {
  const states = (of, names) => Object.entries(names).filter(([state]) => of[state]).map(([state, name]) => `${number(of[state])} ${name}`).join(", ");
  const broken = subscriptions.parked + subscriptions.failing;
  return html`<${Tiles}>
    <${Tile} label="Integrations" value=${short(totals.integrations)} tone=${integrations.error ? "bad" : integrations.review ? "warn" : ""}
      note=${states(integrations, { error: "failing", review: "to review", pending: "starting", paused: "paused" }) || (totals.integrations ? "all active" : "none yet")} href=${url("integrations")} />
    <${Tile} label="Courses" value=${short(totals.courses)}
      note=${totals.quarantined ? `${totals.quarantined} quarantined` : "live"} tone=${totals.quarantined ? "warn" : ""} />
    <${Tile} label="Held for review" value=${short(totals.held)} note="changes"
      tone=${totals.held ? "warn" : ""} href=${url("integrations", { state: "review" })} />
    <${Tile} label="Events" value=${short(totals.events)} note="in the log" href=${url("events")} />
    <${Tile} label="Subscriptions" value=${short(totals.subscriptions)} tone=${subscriptions.disabled ? "bad" : broken ? "warn" : ""}
      note=${states(subscriptions, { disabled: "disabled", parked: "parked", failing: "failing", paused: "paused" }) || (totals.subscriptions ? "all active" : "none yet")}
      href=${url("subscriptions")} />
    <${Tile} label="Pending" value=${short(totals.pending)} note="deliveries" href=${url("deliveries", { state: "pending,retrying" })} />
    <${Tile} label="Dead letters" value=${short(totals.dead)} note="not attempted again"
      tone=${totals.dead ? "bad" : ""} href=${url("deliveries", { state: "dead" })} />
  </${Tiles}>`;
}

function FirstSteps({ totals }) {
  return html`<${Card} title="Start here">
    <ol class="steps">
      <li class=${totals.integrations ? "done" : ""}><strong>Register an integration.</strong> Coursewire polls
        its courses and finds what changes.</li>
      <li class=${totals.subscriptions ? "done" : ""}><strong>Create a subscription.</strong> It names the URL that
        receives the events.</li>
      <li><strong>Change a course.</strong> The event appears under Events, and its delivery with the
        subscription.</li>
    </ol>
    ${isAdmin() && html`<p class="row">${totals.integrations
      ? html`<a class="button primary" href=${url("subscriptions", "new")}>Create a subscription</a>`
      : html`<a class="button primary" href=${url("integrations", "new")}>Register an integration</a>
          <a class="button" href=${url("integrations", "new", { sandbox: 1 })}>Try it with the sandbox</a>`}</p>`}
  </${Card}>`;
}

// Integrations and subscriptions that wait for a person.
function Attention({ status }) {
  const find = (what, state, signal) =>
    state.some((one) => status[what][one]) ? get(`/v1/${what}`, { state, limit: 10 }, signal) : { items: [] };
  const list = useLoad(async (signal) => {
    const [integrations, subscriptions] = await Promise.all([
      find("integrations", ["error", "review"], signal),
      find("subscriptions", ["disabled", "parked"], signal),
    ]);
    return [
      ...integrations.items.map((one) => ({
        href: url(...["integrations", one.id, one.state === "review" && "review"].filter(Boolean)),
        state: one.state,
        name: one.name,
        text: one.state === "review" ? `${count(one.held, "change")} held for a decision` : one.error?.message,
      })),
      ...subscriptions.items.map((one) => ({
        href: url("subscriptions", one.id),
        state: one.state,
        name: one.description || one.url,
        text: one.disabled_reason ?? `${count(one.pending, "event")} pending`,
      })),
    ];
  }, [], { every: REFRESH });
  return html`<${Card} title="Needs attention">
    <${Loaded} of=${list}>${(items) =>
      items.length
        ? html`<ul class="list">${items.map((one) => html`<li key=${one.href}>
            <${State} state=${one.state} /> <a href=${one.href}><${Text} brief value=${one.name} /></a>
            <span class="muted"><${Text} value=${sentence(one.text)} /></span></li>`)}</ul>`
        : html`<p class="muted">Nothing needs you.</p>`}</${Loaded}>
  </${Card}>`;
}

// The newest events.
function Latest() {
  const events = useLoad((signal) => get("/v1/events", { order: "desc", limit: 8 }, signal), [], { every: REFRESH });
  return html`<${Card} title="Latest events" actions=${html`<a href=${url("events")}>All events</a>`}>
    <${Loaded} of=${events}>${({ items }) =>
      items.length
        ? html`<ul class="list feed">${items.map((one) => html`<li key=${one.data.event_id}>
            <${EventType} type=${one.type} />
            <a href=${url("events", one.data.event_id)}><${EventName} event=${one} /></a>
            <${Time} at=${one.timestamp} ago /></li>`)}</ul>`
        : html`<p class="muted">No event yet.</p>`}</${Loaded}>
  </${Card}>`;
}
