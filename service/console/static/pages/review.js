// Shows the changes that are held for review, and decides on exactly those that are shown.
import { html, useState } from "../vendor/standalone.module.js";
import { get, path, send } from "../api.js";
import { url } from "../router.js";
import { isAdmin } from "../session.js";
import { Confirm, Dialog, notify } from "../ui/dialog.js";
import { courseTitle } from "../ui/event.js";
import { useLoad } from "../ui/load.js";
import { Card, Page, Tile, Tiles } from "../ui/page.js";
import { Loaded } from "../ui/problem.js";
import { Table } from "../ui/table.js";
import { Chips, count, Empty, Json, number, percent, State, Text, Time } from "../ui/text.js";
import { integrationTabs } from "./integration.js";
import { CheckResult } from "./integration_form.js";

const SAMPLE = 5; // courses of each group, until more are asked for
const PREVIEWED = 20; // courses that the upstream is asked for in one request
const REFRESH = 3; // seconds, while a decision is carried out

const EVIDENCE = {
  tombstone: "Deletions that the upstream reports",
  absence: "Courses that are missing from the upstream",
};

export function Review({ id }) {
  const [preview, setPreview] = useState(null); // how many courses the upstream is asked for
  const [carriedOut, setCarriedOut] = useState(0);
  const shown = useLoad(async (signal) => {
    const [one, { data, etag }] = await Promise.all([
      get(path`/v1/integrations/${id}`, {}, signal),
      send("GET", path`/v1/integrations/${id}/review`, { query: { limit: 500, preview }, signal }),
    ]);
    if (carriedOut && data.state === "none") setCarriedOut(0);
    return { one, review: data, etag };
  }, [id, preview], { every: carriedOut });
  const name = shown.data?.one.name ?? "Integration";
  return html`<${Page} title="Review of ${name}" heading=${html`<${Text} brief value=${name} />`}
    crumbs=${[[url("integrations"), "Integrations"]]}>
    ${integrationTabs(id, shown.data?.one.held)}
    <${Loaded} of=${shown}>${({ one, review, etag }) =>
      review.state === "none"
        ? html`<${Empty} title="Nothing is held for review.">When one poll finds more deletions than the guards
            allow, or one path changed in most courses, Coursewire holds these changes here until somebody
            decides. Until then, nothing of them is published.</${Empty}>`
        : html`<${Held} id=${id} one=${one} review=${review} etag=${etag} reload=${shown.reload}
            compare=${() => (preview ? shown.reload() : setPreview(PREVIEWED))} comparing=${shown.busy && preview}
            onDecided=${() => { setCarriedOut(REFRESH); setPreview(null); shown.reload(); }} />`}</${Loaded}>
  </${Page}>`;
}

const LIMITS = {
  deleted_share: (one) => `${number(one.count)} of ${number(one.live)} courses are missing or deleted: ${percent(one.share)}, and ${percent(one.allowed)} are allowed.`,
  deleted_share_max: (one) => LIMITS.deleted_share(one),
  changed_share: (one) => `${one.path} changed in ${number(one.count)} of ${number(one.live)} courses: ${percent(one.share)}, and ${percent(one.allowed)} are allowed.`,
};

function Held({ id, one, review, etag, reload, compare, comparing, onDecided }) {
  const [decision, setDecision] = useState(null);
  const changed = Object.values(review.changed).reduce((sum, n) => sum + n, 0);
  const groups = grouped(review.items);
  const partly = review.next !== null;
  const decide = async () => {
    let taken;
    try {
      taken = await send("POST", path`/v1/integrations/${id}/review`, { body: { decision: decision.word }, etag });
    } catch (problem) {
      if (problem.status === 412) problem.title = "The held changes differ from those shown";
      throw problem;
    }
    const left = taken.data.subscriptions_not_informed;
    notify(`The next poll carries it out.${left ? ` ${count(left, "subscription")} will not learn of these changes.` : ""}`);
    onDecided();
  };
  return html`
    <${Card} title=${html`Held since <${Time} at=${review.since} /> <${State} state=${review.state} />`}
      actions=${isAdmin() && review.state === "open" && html`
        <button type="button" onClick=${reload}>Reload</button>
        <button type="button" disabled=${comparing} onClick=${compare}>Compare with the upstream</button>
        ${DECISIONS.map((one) => html`<button type="button" class=${one.style} onClick=${() => setDecision(one)}>${one.action}</button>`)}`}>
      <${Tiles}>
        <${Tile} label="Deletions" value=${number(review.deleted)} tone=${review.deleted ? "warn" : ""} />
        ${Object.entries(review.changed).map(([changedPath, n]) => html`<${Tile} label=${changedPath} value=${number(n)} note="courses changed" />`)}
        <${Tile} label="Live courses" value=${number(one.course_count)} />
      </${Tiles}>
      ${review.exceeded.map((limit) => html`<p><${Text} value=${LIMITS[limit.limit](limit)} /></p>`)}
      ${review.state === "open" && !review.exceeded.length && html`<p>A deletion could not be confirmed before it was published.</p>`}
      <${CheckFailure} result=${review.preview} />
      <p class="muted">${review.state === "open"
        ? "Check the samples below against the learning system, then decide. Your decision applies to exactly the changes shown here. If they change in the meantime, the decision is refused."
        : "A decision is being carried out. This page follows it."}</p>
    </${Card}>
    ${groups.map((group) => html`<${Group} key=${group.title} id=${id} group=${group} />`)}
    ${partly && html`<p class="muted more">The lists show the first ${number(review.items.length)} of the held changes.</p>`}
    ${decision && html`<${Confirm} title=${`${decision.action}: ${one.name}`} action=${decision.action}
      danger=${decision.style === "danger"} onClose=${() => setDecision(null)} onConfirm=${decide} onStale=${reload}>
      <p>Held: ${[review.deleted && count(review.deleted, "deletion"), changed && `${count(changed, "change")} of paths`].filter(Boolean).join(" and ")}.</p>
      <p>${decision.meaning}</p>
    </${Confirm}>`}`;
}

const DECISIONS = [
  { word: "accept_silently", action: "Accept silently", style: "", meaning: "Coursewire records these changes and publishes no events. Subscribers are not informed of these changes." },
  { word: "publish", action: "Publish", style: "primary", meaning: "Coursewire requests these courses again and publishes an event for each change that still exists. A course that still exists is not reported as deleted." },
];

// By kind: deletions by their evidence, changes by the set of paths.
function grouped(items) {
  const groups = new Map();
  for (const item of items) {
    const key = item.kind === "deleted" ? item.evidence : item.changed.join(" ");
    if (!groups.has(key)) {
      const title = item.kind === "deleted" ? EVIDENCE[key] : null;
      groups.set(key, { key, title: title ?? `Changes of ${item.changed.join(", ")}`, paths: item.changed, items: [] });
    }
    groups.get(key).items.push(item);
  }
  return [...groups.values()].sort((a, b) => b.items.length - a.items.length);
}

// Where a preview was asked for and the upstream did not answer.
const CheckFailure = ({ result }) => result && !result.ok && html`<${CheckResult} result=${result} />`;

const NOW = {
  live: ["live", "still there"],
  deleted: ["deleted", "deleted"],
  absent: ["none", "missing"],
  unreadable: ["quarantined", "unreadable"],
  not_requested: ["off", "not asked for"],
};

function Upstream({ now }) {
  const [state, label] = NOW[now.state] ?? [now.state, now.state];
  const [open, setOpen] = useState(false);
  return html`<${State} state=${state} label=${label} /> ${now.record && html`<${Text} value=${courseTitle(now.record)} fallback="" />
    ${" "}<button type="button" class="small" onClick=${() => setOpen(true)}>Record</button>`}
    ${open && html`<${Dialog} title="The record at the upstream" onClose=${() => setOpen(false)} wide><${Json} value=${now.record} /></${Dialog}>`}`;
}

function Group({ id, group }) {
  const [all, setAll] = useState(false);
  const compared = group.items.some((one) => one.upstream);
  const columns = [
    { title: "Course", cell: (one) => html`<a href=${url("integrations", id, "courses", { id: one.course_id })}><${Text} brief value=${one.course_id} mono /></a>` },
    { title: "Remote id", cell: (one) => html`<${Text} value=${one.remote_id} mono />` },
    compared && { title: "At the upstream now", cell: (one) => (one.upstream ? html`<${Upstream} now=${one.upstream} />` : html`<span class="muted">not compared</span>`) },
    { title: "What is held", cell: (one) => (one.kind === "deleted" ? `deletion, by ${one.evidence}` : html`<${Chips} items=${one.changed} />`) },
  ].filter(Boolean);
  return html`<${Card} title=${html`${group.title} <span class="count">${number(group.items.length)}</span>`}>
    <${Table} caption=${group.title} columns=${columns} id=${(one) => one.course_id} rows=${all ? group.items : group.items.slice(0, SAMPLE)} />
    ${!all && group.items.length > SAMPLE && html`<p class="more"><button type="button" onClick=${() => setAll(true)}>Show all ${number(group.items.length)}</button></p>`}
  </${Card}>`;
}
