// Finds courses of an integration by any of their ids or by their state, and shows one.
import { html } from "../vendor/standalone.module.js";
import { get, path } from "../api.js";
import { url, useQuery } from "../router.js";
import { EventTitle } from "../ui/event.js";
import { useLoad } from "../ui/load.js";
import { Card, Facts, Progress } from "../ui/page.js";
import { Loaded, ProblemBox } from "../ui/problem.js";
import { useScan } from "../ui/scan.js";
import { Choice, Pager, Search, Table } from "../ui/table.js";
import { Empty, Id, State, Text } from "../ui/text.js";

const STATES = [["", "All states"], ["live", "Live"], ["deleted", "Deleted"], ["held", "Held"], ["quarantined", "Quarantined"]];

const FEW = 50; // courses whose titles are requested

const eventLink = (one, titled) =>
  one.last_event_id
    ? html`<a href=${url("events", one.last_event_id)}>${titled ? html`<${EventTitle} id=${one.last_event_id} fallback="Show" />` : "Show"}</a>`
    : html`<span class="muted">none yet</span>`;

const columns = (id, n) => [
  { title: "Course id", cell: (one) => html`<a href=${url("integrations", id, "courses", { id: one.course_id })}><${Text} brief value=${one.course_id} mono /></a>` },
  { title: "Id in the learning system", cell: (one) => html`<${Text} value=${one.remote_id} mono />` },
  { title: "Origin id", cell: (one) => html`<${Text} value=${one.origin_id} mono />` },
  { title: "State", cell: (one) => html`<${State} state=${one.state} />${one.reason && html`<div class="muted"><${Text} value=${one.reason} /></div>`}` },
  { title: "Last event", cell: (one) => eventLink(one, n <= FEW) },
];

export function Courses({ one: { id } }) {
  const [query] = useQuery();
  const [one, wanted, state] = [query.get("id"), query.get("q"), query.get("state")];
  if (one) return html`<${Course} id=${id} courseId=${one} />`;
  return html`<p class="lead muted">Coursewire stores digests of
      courses, not their content. So only a course that has an event has a title here. The origin id is the id in the
      system that the course came from.</p>
    <div class="filters" role="search">
      <${Search} name="q" label="Find by any of its ids" /><${Choice} name="state" label="State" options=${STATES} />
    </div>
    ${wanted || state ? html`<${Found} id=${id} search=${wanted} state=${state} />` : html`<${All} id=${id} />`}`;
}

function All({ id }) {
  const [query] = useQuery();
  const after = query.get("after");
  const list = useLoad((signal) => get(path`/v1/integrations/${id}/courses`, { after, limit: 50 }, signal), [id, after]);
  return html`<${Loaded} of=${list}>${(page) => html`
    <${Table} caption="Courses" columns=${columns(id, page.items.length)} rows=${page.items} id=${(row) => row.course_id}
      empty=${page.next ? html`<p class="muted">This page is empty. The next one may hold courses.</p>` : html`<${Empty} title="No course is recorded yet." action=${html`<a class="button" href=${url("integrations", id)}>See its polls</a>`}>
        The first full poll records the courses. It starts by itself.<//>`} />
    <${Pager} page=${page} />`}<//>`;
}

// A request looks through a part of the courses; the others follow until enough match.
function Found({ id, search, state }) {
  const scan = useScan(path`/v1/integrations/${id}/courses`, { search, state }, Boolean, [id, search, state]);
  return html`
    <${ProblemBox} problem=${scan.problem} retry=${scan.more} />
    ${scan.busy && html`<div class="row"><${Progress} label="Searching the courses" />
      <button class="small" onClick=${scan.cancel}>Stop</button></div>`}
    ${(scan.items.length > 0 || scan.done) && html`<${Table} caption="Courses found" columns=${columns(id, scan.items.length)} rows=${scan.items} id=${(row) => row.course_id}
      empty=${html`<${Empty} title="No course matches.">Change the text or the state. Part of an id is enough.<//>`} />`}
    ${!scan.busy && !scan.done && html`<p class="more"><button onClick=${scan.more}>Look for more</button></p>`}`;
}

function Course({ id, courseId }) {
  const shown = useLoad((signal) => get(path`/v1/integrations/${id}/courses`, { course_id: courseId }, signal), [id, courseId], { every: 5 });
  return html`<${Card} title=${html`Course <${Text} brief value=${courseId} mono />`}
    actions=${html`<a class="button" href=${url("integrations", id, "courses")}>All courses</a>
      <a class="button primary" href=${url("events", { integration_id: id, course_id: courseId })}>Its history</a>`}>
    <${Loaded} of=${shown}>${({ items: [course] }) =>
      course
        ? html`<${Facts} items=${[
            ["State", html`<${State} state=${course.state} />`],
            ["Id", html`<${Id} id=${course.course_id} />`],
            ["Id in the learning system", html`<${Text} value=${course.remote_id} mono />`],
            ["Origin id", html`<${Text} value=${course.origin_id} mono />`],
            ["Last event", eventLink(course, true)],
            ["Why it is quarantined", course.reason && html`<${Text} value=${course.reason} />`],
          ]} />`
        : html`<${Empty} title="This integration has no such course.">Its next poll may find it.<//>`}<//>
  <//>`;
}
