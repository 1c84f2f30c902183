// Lists the subscriptions.
import { html } from "../../vendor/standalone.module.js";
import { get, path } from "../../api.js";
import { url, useQuery } from "../../router.js";
import { isAdmin, isSubscriber } from "../../session.js";
import { useLoad } from "../../ui/load.js";
import { nameOf } from "../../ui/names.js";
import { Page } from "../../ui/page.js";
import { Spark } from "../../ui/plot.js";
import { Loaded } from "../../ui/problem.js";
import { Choice, Pager, Search, Table, emptyPage } from "../../ui/table.js";
import { count, Empty, percent, short, State, Text, Time } from "../../ui/text.js";

const STATES = [["", "All states"], ["active", "Active"], ["paused", "Paused"], ["parked", "Parked"], ["disabled", "Disabled"]];

export const maySubscribe = () => isAdmin() || isSubscriber();

const COLUMNS = [
  { title: "Receiver", cell: (one) => html`<a class="strong" href=${url("subscriptions", one.id)}><${Text} brief value=${nameOf(one)} /></a>
      ${one.description && html`<div class="muted"><${Text} brief value=${one.url} mono /></div>`}` },
  { title: "State", cell: (one) => html`<${State} state=${one.state} />
      ${one.disabled_reason && html`<div class="bad"><${Text} value=${one.disabled_reason} /></div>`}` },
  { title: "Pending", number: true, cell: (one) => html`${short(one.pending)}
      ${one.oldest_pending_at && html`<div class="muted">oldest <${Time} at=${one.oldest_pending_at} ago /></div>`}` },
  { title: "Dead letters", number: true, cell: (one) => (one.dead
      ? html`<a class="bad" href=${url("subscriptions", one.id, { state: "dead" })}>${short(one.dead)}</a>` : "0") },
  { title: "Latest attempts", cell: (one) => html`<${SuccessRate} id=${one.id} />` },
];

// The success rate of the latest attempts, as a line and as a figure.
function SuccessRate({ id }) {
  const { data } = useLoad((signal) => get(path`/v1/subscriptions/${id}/statistics`, { attempts: 100 }, signal), [id], { every: 60 });
  if (!data?.attempts) return html`<span class="muted">${data ? "none yet" : "–"}</span>`;
  const rate = data.success_rate;
  const tone = rate > 0.99 ? "ok" : rate > 0.8 ? "warn" : "bad";
  const label = `${percent(rate)} of ${count(data.attempts, "attempt")} succeeded`;
  return html`<span class="row rate" title=${label}><${Spark} max=${1} tone=${tone} label=${label}
    values=${data.slices.map((one) => one.delivered / one.attempts)} /> ${percent(rate)}</span>`;
}

export function Subscriptions() {
  const [query] = useQuery();
  const filter = { name: query.get("name"), state: query.get("state"), label: query.getAll("label") };
  const list = useLoad(
    (signal) => get("/v1/subscriptions", { ...filter, after: query.get("after"), limit: 50 }, signal),
    [query.toString()],
    { every: 5 },
  );
  const create = maySubscribe() && html`<a class="button primary" href=${url("subscriptions", "new")}>Create a subscription</a>`;
  const empty = filter.name || filter.state || filter.label.length
    ? html`<${Empty} title="No subscription matches.">Change the search or the state.<//>`
    : html`<${Empty} title="There are no subscriptions yet." action=${create}>A subscription sends events to a URL of yours.
        Create one: the console then shows its secret and a receiver, ready to be started.<//>`;
  return html`<${Page} title="Subscriptions" actions=${create} doc="receiving-events">
    <div class="filters" role="search">
      <${Search} label="Search by description or URL" /><${Choice} name="state" label="State" options=${STATES} />
    </div>
    <${Loaded} of=${list}>${(page) => html`
      <${Table} caption="Subscriptions" columns=${COLUMNS} rows=${page.items} empty=${emptyPage(page, empty)} busy=${list.busy} />
      <${Pager} page=${page} />`}<//>
  <//>`;
}
