// Follows the event log, or the history of one course.
import { html, useState } from "../../vendor/standalone.module.js";
import { get } from "../../api.js";
import { url, useQuery } from "../../router.js";
import { isSubscriber } from "../../session.js";
import { courseTitle, EventName, EventType } from "../../ui/event.js";
import { useLoad } from "../../ui/load.js";
import { Page } from "../../ui/page.js";
import { Loading, ProblemBox } from "../../ui/problem.js";
import { Choice, Search, Table } from "../../ui/table.js";
import { Chips, count, Empty, Text, Time } from "../../ui/text.js";
import { CHANGED_PATHS, EVENT_TYPES, integrationsPath } from "../subscriptions/form.js";
import { useTail } from "./tail.js";

const FEW = 50; // integrations that are offered for a choice
const SHOWN = 4; // changed paths in a row
const TYPES = [["", "All types"], ...EVENT_TYPES.map((type) => [type, type])];
const PATHS = [["", "Any change"], ...CHANGED_PATHS.map((path) => [path, path])];

const columns = (arrived) => [
  { title: "When", cell: ({ timestamp, data }) => html`<span class=${arrived.has(data.event_id) ? "arrived" : ""}><${Time} at=${timestamp} /></span>` },
  { title: "Type", cell: (event) => html`<${EventType} type=${event.type} />` },
  { title: "Event", cell: (event) => html`<a class="strong" href=${url("events", event.data.event_id)}><${EventName} event=${event} /></a>
      ${courseTitle(event.data.course) && html`<div class="muted"><${Text} value=${event.data.course_id} mono /></div>`}` },
  { title: "Changed", cell: ({ data }) => html`<${Chips} items=${data.changed?.slice(0, SHOWN)} none="" />
      ${data.changed?.length > SHOWN && html` <span class="muted">and ${data.changed.length - SHOWN} more</span>`}` },
];

export function Events() {
  const [query, setQuery] = useQuery();
  const [paused, setPaused] = useState(false);
  const [type, integration, course, changed] = ["type", "integration_id", "course_id", "changed"].map((name) => query.get(name));
  const matches = ({ data }) => !changed || (data.changed ?? []).some((path) => path === changed || path.startsWith(`${changed}.`));
  const tail = useTail({ type, integration_id: integration, course_id: course }, matches, paused, [type, integration, course, changed]);
  const filtered = type || integration || course || changed;
  const title = course && tail.events.map((one) => courseTitle(one.data.course)).find(Boolean);
  const crumbs = course ? [[url("events"), "Events"]] : [];
  return html`<${Page} title=${course ? `History of ${title ?? course}` : "Events"} crumbs=${crumbs}
    heading=${course ? html`History of <${Text} value=${title ?? course} />` : "Events"}
    doc="event-types" actions=${html`<span class="state ${paused ? "off" : "ok"}" role="status">${paused ? "paused" : "live"}</span>
      <button onClick=${() => setPaused(!paused)}>${paused ? "Resume" : "Pause"}</button>`}>
    <div class="filters" role="search">
      <${Choice} name="type" label="Type" options=${TYPES} />
      <${IntegrationFilter} />
      <${Choice} name="changed" label="Changed field" options=${PATHS} />
      <${Search} name="course_id" label="Course id" />
      ${filtered && html`<button class="link" onClick=${() => setQuery({ type: "", integration_id: "", course_id: "", changed: "" })}>Clear</button>`}
    </div>
    <${ProblemBox} problem=${tail.problem} />
    <p class="visually-hidden" role="status">${tail.arrived.size > 0 && count(tail.arrived.size, "new event")}</p>
    ${tail.events.length > 0 && html`<${Table} caption="Events" columns=${columns(tail.arrived)} rows=${tail.events} id=${(one) => one.data.event_id} />`}
    ${tail.busy && html`<${Loading} />`}
    ${!tail.busy && !tail.events.length && !tail.more && !tail.problem && html`<${Nothing} filtered=${filtered} />`}
    ${!tail.busy && tail.more && html`<p class="more"><button onClick=${tail.older}>${tail.events.length ? "Show older events" : "Look further back"}</button></p>`}
  <//>`;
}

function Nothing({ filtered }) {
  if (filtered) return html`<${Empty} title="No event matches.">Events that match appear here as they happen. Change the filters to see others.<//>`;
  return isSubscriber()
    ? html`<${Empty} title="There are no events yet." action=${html`<a class="button primary" href=${url("subscriptions", "new")}>Create a subscription</a>`}>
        Events that your key may see appear here as they happen. A subscription sends them to a URL of yours.<//>`
    : html`<${Empty} title="There are no events yet." action=${html`<a class="button" href=${url("integrations")}>Integrations</a>`}>
        First register an integration. Its first full poll only records the courses. Events appear here when later polls
        find changes.<//>`;
}

function IntegrationFilter() {
  const [query] = useQuery();
  const list = useLoad((signal) => get(integrationsPath(), { limit: FEW + 1 }, signal), []);
  const known = list.data?.items ?? [];
  const chosen = query.get("integration_id");
  if (known.length > FEW) return html`<${Search} name="integration_id" label="Integration id" />`;
  const options = known.map((one) => [one.id, one.name]);
  if (chosen && !known.some((one) => one.id === chosen)) options.push([chosen, chosen]);
  return html`<${Choice} name="integration_id" label="Integration" options=${[["", "All integrations"], ...options]} />`;
}
