// Shows one subscription: its deliveries, its replays, its receiver, its settings.
import { html, useState } from "../../vendor/standalone.module.js";
import { get, path, send } from "../../api.js";
import { url } from "../../router.js";
import { useLoad } from "../../ui/load.js";
import { Name, nameOf } from "../../ui/names.js";
import { Card, Facts, Page, Tile, Tiles } from "../../ui/page.js";
import { Spark } from "../../ui/plot.js";
import { Loaded, ProblemBox } from "../../ui/problem.js";
import { Tabs } from "../../ui/table.js";
import { Chips, Code, count, duration, Empty, Id, Labels, number, percent, short, State, Text, Time } from "../../ui/text.js";
import { Actions } from "./actions.js";
import { FilteredDeliveries } from "./deliveries.js";
import { maySubscribe } from "./list.js";
import { Receivers } from "./receivers.js";
import { Replays } from "./replays.js";

const TABS = { replays: "Replays", receiver: "Receiver", settings: "Settings" };

export function Subscription({ id, tab }) {
  const shown = useLoad(async (signal) => {
    const { data, etag } = await send("GET", path`/v1/subscriptions/${id}`, { signal });
    return { one: data, etag };
  }, [id], { every: 3 });
  const crumbs = [[url("subscriptions"), "Subscriptions"]];
  if (!shown.data) return html`<${Page} title="Subscription" crumbs=${crumbs}><${Loaded} of=${shown} /><//>`;
  const { one, etag } = shown.data;
  return html`<${Page} title=${nameOf(one)} crumbs=${crumbs} doc="receiving-events" heading=${html`<${Text} value=${nameOf(one)} /> <${State} state=${one.state} />`}
    actions=${maySubscribe() && html`<${Actions} one=${one} etag=${etag} reload=${shown.reload} />`}>
    <${Tabs} label="Subscription" tabs=${[[["subscriptions", id], "Deliveries"],
      ...Object.entries(TABS).map(([name, text]) => [["subscriptions", id, name], text])]} />
    <${ProblemBox} problem=${shown.problem} retry=${shown.reload} />
    <${Trouble} one=${one} />
    ${!tab && html`<${Figures} one=${one} /><${FilteredDeliveries} id=${id} />`}
    ${tab === "replays" && html`<${Replays} one=${one} />`}
    ${tab === "receiver" && html`<${Receiver} one=${one} />`}
    ${tab === "settings" && html`<${Card} title="Settings"><${Settings} one=${one} /><//>`}
    ${tab && !TABS[tab] && html`<${Empty} title="Page not found">Choose one of the pages above.<//>`}
  <//>`;
}

function Trouble({ one }) {
  if (one.state === "disabled") return html`<div class="problem" role="alert">
    <p class="strong">Nothing is sent any more: <${Text} value=${one.disabled_reason} /></p>
    <p>Repair the receiver, send a test event, then resume the subscription. Events are queued meanwhile.</p></div>`;
  if (one.state === "parked") return html`<div class="notice"><p><strong>The receiver keeps failing, so only probes are sent.</strong>
    ${" "}Repair the receiver, then resume the subscription. Events are queued meanwhile.</p></div>`;
  return null;
}

function Figures({ one }) {
  const { data } = useLoad((signal) => get(path`/v1/subscriptions/${one.id}/statistics`, {}, signal), [one.id], { every: 10 });
  const rate = data?.success_rate;
  const at = (state) => url("subscriptions", one.id, { state });
  return html`<${Tiles}>
    <${Tile} label="Pending" value=${short(one.pending)} href=${at("pending,retrying")}
      note=${one.oldest_pending_at && html`oldest <${Time} at=${one.oldest_pending_at} ago />`} />
    <${Tile} label="Dead letters" value=${short(one.dead)} tone=${one.dead ? "bad" : ""} href=${at("dead")} />
    <${Tile} label="Success rate" value=${data?.attempts ? percent(rate) : "–"} tone=${data?.attempts && rate < 0.8 ? "bad" : ""}
      note=${data?.attempts ? html`<${Spark} max=${1} tone=${rate > 0.99 ? "ok" : rate > 0.8 ? "warn" : "bad"}
        label="Success rate over ${count(data.attempts, "attempt")}" values=${data.slices.map((s) => s.delivered / s.attempts)} />` : "no attempt yet"} />
    <${Tile} label="Median attempt" value=${data?.attempts ? duration(data.p50_ms / 1000) : "–"}
      note=${data?.attempts ? `95 % took at most ${duration(data.p95_ms / 1000)}` : null} />
  <//>`;
}

function Receiver({ one }) {
  const [secret, setSecret] = useState(null);
  const [problem, setProblem] = useState(null);
  const show = () => get(path`/v1/subscriptions/${one.id}/secret`).then((found) => (setSecret(found), setProblem(null)), setProblem);
  const hidden = one.signature === "hmac" && !secret;
  return html`<${Card} title="Secret" actions=${hidden && maySubscribe() && html`<button onClick=${show}>Show the secret</button>`}>
      <${ProblemBox} problem=${problem} />
      ${hidden
        ? html`<p class="muted">This secret signs the pushes. ${maySubscribe() ? "Show it to have it in the receivers below." : "Your token may not see it."}</p>`
        : html`<${Code} text=${one.signature === "hmac" ? secret.secret : one.public_key} label=${one.signature === "hmac" ? "Secret" : "Public key"} />
          ${secret?.previous.map((old) => html`<p class="muted">The previous secret signs until <${Time} at=${old.expires_at} />.</p>`)}`}
    <//>
    <${Card} title="Receiver"><${Receivers} one=${one} secret=${secret?.secret} /><//>`;
}

const Settings = ({ one }) => html`<${Facts} items=${[
  ["Id", html`<${Id} id=${one.id} />`],
  ["URL", html`<${Text} value=${one.url} mono />`],
  ["Description", html`<${Text} value=${one.description} />`],
  ["Event types", html`<${Chips} items=${one.event_types} none="every course event" />`],
  ["Changed fields", html`<${Chips} items=${one.changed} none="any" />`],
  ["Integrations", html`<${Chips} items=${one.integration_ids?.map((id) => html`<${Name} what="integrations" id=${id} />`)} none="all" />`],
  ["Labels", html`<${Labels} labels=${one.labels} none="any" />`],
  ["Payload", one.payload === "thin" ? "thin: without the course" : "full: with the course"],
  ["Format", one.format],
  ["Signature", one.signature],
  ["Headers", html`<${Chips} items=${Object.keys(one.headers)} none="none" />`],
  ["Client certificate", one.client_certificate && html`<${Text} value=${one.client_certificate.subject} />, until <${Time} at=${one.client_certificate.not_after} />`],
  ["Pushes at once", number(one.max_concurrency)],
  ["Pushes per second", one.rate_per_second === null ? "no limit" : number(one.rate_per_second)],
  ["Timeout", duration(one.timeout_seconds)],
  ["Waits before retries", one.retry_schedule_seconds.map((seconds) => duration(seconds)).join(", ") || "no retries"],
  ["Owner", html`<${Text} value=${one.owner} fallback="the operator" mono />`],
  ["Created", html`<${Time} at=${one.created_at} />`],
  ["Changed", html`<${Time} at=${one.updated_at} />`],
]} />`;
