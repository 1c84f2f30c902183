// The latest polls of an integration, drawn and listed.
import { html, useState } from "../vendor/standalone.module.js";
import { get, path } from "../api.js";
import { url } from "../router.js";
import { useLoad } from "../ui/load.js";
import { Card, Progress } from "../ui/page.js";
import { Loaded } from "../ui/problem.js";
import { Table } from "../ui/table.js";
import { count, duration, Empty, number, sentence, State, Text, Time, tone } from "../ui/text.js";

const LISTED = 10;

const columns = (id) => [
  { title: "Poll", cell: (one) => one.kind },
  { title: "State", cell: (one) => html`<${State} state=${stateOf(one)} label=${one.state} />${one.requested_at && html` <span class="muted">requested</span>`}` },
  { title: "Started", cell: (one) => html`<${Time} at=${one.started_at} />` },
  { title: "Took", number: true, cell: (one) => duration(one.duration_seconds) },
  { title: "Records", number: true, cell: (one) => number(one.records) },
  { title: "Events", number: true, cell: (one) => number(one.changes) },
  { title: "Outcome", cell: (one) => html`
      <span class="muted">${Object.entries(one.verdicts).map(([name, n]) => `${number(n)} ${name.replaceAll("_", " ")}`).join(", ")}</span>
      ${one.error && html`<div class=${one.state === "completed" ? "warn" : "bad"}><${Text} value=${sentence(one.error.replace(REVIEW, ""))} />
        ${REVIEW.test(one.error) && html` <a href=${url("integrations", id, "review")}>Review</a>`}</div>`}` },
];
const REVIEW = /: GET \S+\/review$/; // how the API refers to the review

// A poll that completed although something needs a person, such as a review.
const stateOf = (one) => (one.state === "completed" && one.error ? "held" : one.state);

export function Polls({ one: { id, last_poll: latest } }) {
  const [all, setAll] = useState(false);
  const polls = useLoad((signal) => get(path`/v1/integrations/${id}/polls`, {}, signal), [id, latest?.id, latest?.state, latest?.records]);
  return html`<${Card} title="Polls">
    <${Loaded} of=${polls}>${({ items }) => html`
      ${latest?.state === "running" && html`<${Progress} label="A ${latest.kind} poll is running: ${count(latest.records, "record")} so far" />`}
      ${items.length > 0 && html`<${Timeline} polls=${items} />`}
      <${Table} caption="Polls" columns=${columns(id)} rows=${all ? items : items.slice(0, LISTED)}
        empty=${html`<${Empty} title="No poll yet.">The first poll is a full poll. It starts automatically.<//>`} />
      ${items.length > LISTED && !all && html`<p class="more"><button onClick=${() => setAll(true)}>Show all ${items.length}</button></p>`}
    `}<//>
  <//>`;
}

// A bar for each poll, as high as it took long, the oldest first; a mark where it published events.
function Timeline({ polls }) {
  const shown = [...polls].reverse();
  const longest = Math.max(...shown.map((one) => one.duration_seconds ?? 0), 0.001);
  const failed = shown.filter((one) => one.state === "failed").length;
  return html`<div class="timeline" role="img"
    aria-label="${count(shown.length, "poll")}, ${failed} failed, the longest took ${duration(longest)}">
    ${shown.map((one) => html`<span class="bar ${one.kind} ${tone(stateOf(one))}" key=${one.id}
      title=${`${one.kind} poll, ${one.state}\n${new Date(one.started_at ?? one.requested_at).toLocaleString()}\n${duration(one.duration_seconds)}, ${count(one.records, "record")}, ${count(one.changes, "event")}${one.error ? `\n${one.error}` : ""}`}>
      ${one.changes > 0 && html`<i>${one.changes > 99 ? "99+" : one.changes}</i>`}
      <b style=${{ height: `${Math.max(6, (100 * (one.duration_seconds ?? 0)) / longest)}%` }}></b></span>`)}
  </div>
  <p class="legend muted">Height: how long a poll took, at most ${duration(longest)}. Numbers: events published. Wide bars: full polls.</p>`;
}
