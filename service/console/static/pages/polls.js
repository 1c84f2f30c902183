// The latest polls of an integration, drawn and listed.
import { html, useState } from "../vendor/standalone.module.js";
import { get, path } from "../api.js";
import { useLoad } from "../ui/load.js";
import { Card, Progress } from "../ui/page.js";
import { Loaded } from "../ui/problem.js";
import { Table } from "../ui/table.js";
import { count, duration, Empty, number, State, Text, Time, tone } from "../ui/text.js";

const LISTED = 10;

const COLUMNS = [
  { title: "Poll", cell: (one) => one.kind },
  { title: "State", cell: (one) => html`<${State} state=${one.state} />${one.requested_at && html` <span class="muted">requested</span>`}` },
  { title: "Started", cell: (one) => html`<${Time} at=${one.started_at} />` },
  { title: "Took", number: true, cell: (one) => duration(one.duration_seconds) },
  { title: "Records", number: true, cell: (one) => number(one.records) },
  { title: "Changes", number: true, cell: (one) => number(one.changes) },
  { title: "Outcome", cell: (one) => (one.error
      ? html`<span class="bad"><${Text} value=${one.error} /></span>`
      : html`<span class="muted">${Object.entries(one.verdicts).map(([name, n]) => `${number(n)} ${name.replaceAll("_", " ")}`).join(", ")}</span>`) },
];

export function Polls({ id, latest }) {
  const [all, setAll] = useState(false);
  const polls = useLoad((signal) => get(path`/v1/integrations/${id}/polls`, {}, signal), [id, latest?.id, latest?.state, latest?.records]);
  return html`<${Card} title="Polls">
    <${Loaded} of=${polls}>${({ items }) => html`
      ${latest?.state === "running" && html`<${Progress} label="A ${latest.kind} poll is running: ${count(latest.records, "record")} so far" />`}
      ${items.length > 0 && html`<${Timeline} polls=${items} />`}
      <${Table} caption="Polls" columns=${COLUMNS} rows=${all ? items : items.slice(0, LISTED)}
        empty=${html`<${Empty} title="No poll yet.">The first poll is a full poll. It starts automatically.</${Empty}>`} />
      ${items.length > LISTED && !all && html`<p class="more"><button type="button" onClick=${() => setAll(true)}>Show all ${items.length}</button></p>`}
    `}</${Loaded}>
  </${Card}>`;
}

// A bar for each poll, as high as it took long, the oldest first; a mark where it found changes.
function Timeline({ polls }) {
  const shown = [...polls].reverse();
  const longest = Math.max(...shown.map((one) => one.duration_seconds ?? 0), 0.001);
  const failed = shown.filter((one) => one.state === "failed").length;
  return html`<div class="timeline" role="img"
    aria-label="${count(shown.length, "poll")}, ${failed} failed, the longest took ${duration(longest)}">
    ${shown.map((one) => html`<span class="bar ${one.kind} ${tone(one.state)}" key=${one.id}
      title=${`${one.kind} poll, ${one.state}\n${new Date(one.started_at ?? one.requested_at).toLocaleString()}\n${duration(one.duration_seconds)}, ${count(one.records, "record")}, ${count(one.changes, "change")}${one.error ? `\n${one.error}` : ""}`}>
      ${one.changes > 0 && html`<i>${one.changes > 99 ? "99+" : one.changes}</i>`}
      <b style=${{ height: `${Math.max(6, (100 * (one.duration_seconds ?? 0)) / longest)}%` }}></b></span>`)}
  </div>
  <p class="legend muted">Height: how long a poll took, at most ${duration(longest)}. Numbers: changes found. Wide bars: full polls.</p>`;
}
