// Lists the integrations.
import { html } from "../vendor/standalone.module.js";
import { get } from "../api.js";
import { url, useQuery } from "../router.js";
import { isAdmin, isSubscriber } from "../session.js";
import { useLoad } from "../ui/load.js";
import { Page } from "../ui/page.js";
import { Loaded } from "../ui/problem.js";
import { Choice, Pager, Search, Table, emptyPage } from "../ui/table.js";
import { duration, Empty, Id, Labels, number, sentence, State, Text, Time } from "../ui/text.js";

const STATES = [["", "All states"], ["active", "Active"], ["pending", "Pending"], ["error", "Error"], ["review", "Review"], ["paused", "Paused"]];

const COLUMNS = [
  { title: "Name", cell: (one) => html`<a class="strong" href=${url("integrations", one.id)}><${Text} brief value=${one.name} /></a>
      <div class="muted"><${Text} value=${one.upstream_id} mono /></div>
      <${Labels} labels=${one.labels} none="" />` },
  { title: "State", cell: (one) => html`<${State} state=${one.state} />
      ${one.state === "review" && html`<div><a href=${url("integrations", one.id, "review")}>${number(one.held)} held</a></div>`}` },
  { title: "Courses", number: true, cell: (one) => number(one.course_count) },
  { title: "Last poll", cell: (one) => html`<${Time} at=${one.last_poll?.finished_at ?? one.last_poll?.started_at} ago />` },
  { title: "Next poll", cell: (one) => html`<${Time} at=${one.next_poll_at} ago next fallback=${one.paused ? "paused" : "now"} />` },
  { title: "Problem", cell: (one) => one.error && html`<span class="bad"><${Text} value=${sentence(one.error.message)} /></span>` },
];

export const Integrations = () => (isSubscriber() ? html`<${Granted} />` : html`<${All} />`);

function All() {
  const [query] = useQuery();
  const filter = { name: query.get("name"), state: query.get("state"), label: query.getAll("label") };
  const filtered = Boolean(filter.name || filter.state || filter.label.length);
  const list = useLoad(
    (signal) => get("/v1/integrations", { ...filter, after: query.get("after"), limit: 50 }, signal),
    [query.toString()],
    { every: 10 },
  );
  const register = isAdmin() && html`<a class="button primary" href=${url("integrations", "new")}>Register an integration</a>`;
  const empty = filtered
    ? html`<${Empty} title="No integration matches.">Change the search or the state.<//>`
    : html`<${Empty} title="No integration is registered yet." action=${html`${register}${isAdmin() && html` <a class="button" href=${url("integrations", "new", { sandbox: 1 })}>Try it with the sandbox</a>`}`}>An integration is one learning
        system whose courses Coursewire polls. Register one to receive its changes as events.<//>`;
  return html`<${Page} title="Integrations" actions=${register} doc="getting-started">
    <div class="filters" role="search">
      <${Search} label="Search by name" /><${Choice} name="state" label="State" options=${STATES} />
    </div>
    <${Loaded} of=${list}>${(page) => html`
      <${Table} caption="Integrations" columns=${COLUMNS} rows=${page.items} empty=${emptyPage(page, empty)} busy=${list.busy} />
      <${Pager} page=${page} />`}<//>
  <//>`;
}

const GRANTED = [
  { title: "Name", cell: (one) => html`<span class="strong"><${Text} value=${one.name} /></span>
      <div class="muted"><${Text} value=${one.external_id ?? one.upstream_id} mono /></div>` },
  { title: "State", cell: (one) => html`<${State} state=${one.state} />` },
  { title: "Up to date as of", cell: (one) => html`<${Time} at=${one.last_completed_at} ago fallback="not polled yet" />` },
  { title: "Polled", cell: (one) => `every ${duration(one.delta_interval_seconds)}` },
  { title: "Labels", cell: (one) => html`<${Labels} labels=${one.labels} none="" />` },
  { title: "Id", cell: (one) => html`<${Id} id=${one.id} />` },
];

// What a subscriber may know of the integrations whose events it gets.
function Granted() {
  const [query] = useQuery();
  const after = query.get("after");
  const list = useLoad((signal) => get("/v1/me/integrations", { after, limit: 50 }, signal), [after], { every: 10 });
  return html`<${Page} title="Integrations">
    <${Loaded} of=${list}>${(page) => html`
      <${Table} caption="Integrations" columns=${GRANTED} rows=${page.items} busy=${list.busy}
        empty=${emptyPage(page, html`<${Empty} title="No integration is granted to you.">Ask the operator of the service.<//>`)} />
      <${Pager} page=${page} />`}<//>
  <//>`;
}
