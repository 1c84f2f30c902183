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
  return html`<${Page} title="Overview" doc="operations/monitoring">
    <${Loaded} of=${status}>${(found) => html`
      <${Health} status=${found} />
      ${found.totals && html`<${Figures} status=${found} />`}
      ${found.totals && !(found.totals.integrations && found.totals.subscriptions) && html`<${FirstSteps} totals=${found.totals} />`}
      ${found.totals && found.totals.integrations + found.totals.subscriptions + found.totals.events > 0 && html`<${Plots} /><div class="grid"><${Attention} status=${found} /><${Latest} /></div>`}
    `}<//>
  <//>`;
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
          "Publish them, accept them silently, or correct the learning system.", ["integrations", { state: "review" }]],
        [subscriptions.disabled, "subscription is disabled", "subscriptions are disabled", "Repair the receiver, then resume the subscription.", ["subscriptions", { state: "disabled" }]],
        [subscriptions.parked, "receiver fails steadily and is only probed", "receivers fail steadily and are only probed",
          "Repair the receiver. Pending events are then sent automatically.", ["subscriptions", { state: "parked" }]],
        [subscriptions.failing, "receiver failed its last attempt", "receivers failed their last attempts",
          "Coursewire tries again. Check the receiver's responses.", ["deliveries", { state: "retrying" }]],
      ].filter(([n]) => n)
    : [];

// What is to be done first, before anything can arrive: [what is missing, what to do, where, the name of that place].
const firstStep = ({ integrations, subscriptions, totals }) =>
  totals && [
    [!totals.integrations, "No integration is registered yet", "Coursewire polls nothing until you register one.", ["integrations", "new"], "Register an integration"],
    [integrations.paused === totals.integrations, "All integrations are paused", "Changes are detected when you resume one.", ["integrations"], "Integrations"],
    [!totals.subscriptions, "Nobody is subscribed yet", "Changes are detected, and their events are kept, but nobody receives them.", ["subscriptions", "new"], "Create a subscription"],
    [subscriptions.paused === totals.subscriptions, "All subscriptions are paused", "Events are queued and sent when you resume one.", ["subscriptions"], "Subscriptions"],
    [integrations.pending === totals.integrations, "The first full poll is running", "It records the courses. Later changes are sent as events.", ["integrations"], "Integrations"],
  ].find(([missing]) => missing);

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
  const step = firstStep(status);
  const [tone, title] = status.status !== "ok" ? HEALTH[status.status] : waits.length ? HEALTH.waiting : step ? ["busy", step[1]] : HEALTH.ok;
  return html`<section class="health ${tone}" aria-label="Health">
    <div><h2>${title}</h2>
      ${tone === "busy" && html`<p>${step[2]} <a href=${url(...step[3])}>${step[4]}</a></p>`}
      ${tone === "ok" && html`<p>Integrations are polled, and their events are sent to the subscriptions.</p>`}
      ${tone !== "ok" && tone !== "busy" && html`<ul>${status.reasons.map((reason) => html`<li><${Text} value=${sentence(reason)} />
            ${" "}${REMEDIES.find(([pattern]) => pattern.test(reason))?.[1] ?? ""}</li>`)}
          ${waits.map(([n, one, many, remedy, where]) => html`<li><a href=${url(...where)}>${count(n, one, many)}</a>. ${remedy}</li>`)}
          ${step && html`<li><a href=${url(...step[3])}>${step[1]}</a>. ${step[2]}</li>`}</ul>`}</div>
    <p class="muted">Version ${status.version}<br />Checked <${Time} at=${status.time} ago /></p>
  </section>`;
}

function Figures({ status: { integrations, subscriptions, totals } }) {
  const states = (of, ...names) => names.filter((state) => of[state]).map((state) => `${number(of[state])} ${state}`).join(", ");
  const broken = subscriptions.parked + subscriptions.failing;
  return html`<${Tiles}>
    <${Tile} label="Integrations" value=${short(totals.integrations)} tone=${integrations.error ? "bad" : integrations.review ? "warn" : ""}
      note=${states(integrations, "error", "review", "pending", "paused") || (totals.integrations ? "all active" : "none yet")} href=${url("integrations")} />
    <${Tile} label="Courses" value=${short(totals.courses)}
      note=${totals.quarantined ? `${totals.quarantined} quarantined` : "live"} tone=${totals.quarantined ? "warn" : ""} />
    <${Tile} label="Held for review" value=${short(totals.held)} note="changes"
      tone=${totals.held ? "warn" : ""} href=${url("integrations", { state: "review" })} />
    <${Tile} label="Events" value=${short(totals.events)} note="in the log" href=${url("events")} />
    <${Tile} label="Subscriptions" value=${short(totals.subscriptions)} tone=${subscriptions.disabled ? "bad" : broken ? "warn" : ""}
      note=${states(subscriptions, "disabled", "parked", "failing", "paused") || (totals.subscriptions ? "all active" : "none yet")}
      href=${url("subscriptions")} />
    <${Tile} label="Pending" value=${short(totals.pending)} note="deliveries" href=${url("deliveries", { state: "pending,retrying" })} />
    <${Tile} label="Dead letters" value=${short(totals.dead)} note="not attempted again"
      tone=${totals.dead ? "bad" : ""} href=${url("deliveries", { state: "dead" })} />
  <//>`;
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
  <//>`;
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
        : html`<p class="muted">Nothing fails, and nothing is held for review.</p>`}<//>
  <//>`;
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
        : html`<p class="muted">No event yet. An event appears when a poll finds a change.</p>`}<//>
  <//>`;
}
