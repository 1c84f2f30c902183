// Shows the changes that are held for review, and decides on exactly those that are shown.
import { html, useEffect, useRef, useState } from "../vendor/standalone.module.js";
import { get, path, send } from "../api.js";
import { url } from "../router.js";
import { isAdmin } from "../session.js";
import { Confirm, Dialog, notify } from "../ui/dialog.js";
import { courseTitle, EventTitle } from "../ui/event.js";
import { useLoad } from "../ui/load.js";
import { Card, Tile, Tiles } from "../ui/page.js";
import { Loaded } from "../ui/problem.js";
import { Table } from "../ui/table.js";
import { count, Empty, Json, number, percent, State, Text, Time } from "../ui/text.js";
import { CheckResult } from "./integration_form.js";

const SAMPLE = 5; // courses of each group, until more are asked for
const PREVIEWED = 20; // courses that one request to the upstream returns
const REFRESH = 3; // seconds, while a decision is carried out

const EVIDENCE = {
  tombstone: "Deletions that the upstream reports",
  absence: "Courses that are missing from the upstream",
};

// The upstream is asked about some courses once the page is shown, so that people recognise them.
export function Review({ one }) {
  const { id } = one;
  const [carriedOut, setCarriedOut] = useState(0);
  const preview = useRef(false);
  const shown = useLoad(async (signal) => {
    const query = { limit: 500, preview: preview.current ? PREVIEWED : null };
    const { data, etag } = await send("GET", path`/v1/integrations/${id}/review`, { query, signal });
    if (carriedOut && data.state === "none") setCarriedOut(0);
    return { review: data, etag };
  }, [id], { every: carriedOut });
  const compare = () => {
    preview.current = isAdmin();
    shown.reload();
  };
  const state = shown.data?.review.state;
  useEffect(() => {
    if (state === "open") compare();
  }, [state]);
  return html`<${Loaded} of=${shown}>${({ review, etag }) =>
    review.state === "none"
      ? html`<${Empty} title="Nothing is held for review.">There is nothing to do. If one poll finds more deletions than the
          limits allow, or one field changed in too many courses, Coursewire holds these changes here until somebody
          decides. The limits are under Edit, Guards.<//>`
      : html`<${Held} one=${one} review=${review} etag=${etag} compare=${compare} busy=${shown.busy}
          onDecided=${() => { preview.current = false; setCarriedOut(REFRESH); shown.reload(); }} />`}<//>`;
}

const LIMITS = {
  deleted_share: (one) => `${number(one.count)} of ${number(one.live)} courses are missing or deleted: ${percent(one.share)}, and ${percent(one.allowed)} are allowed.`,
  deleted_share_max: (one) => LIMITS.deleted_share(one),
  changed_share: (one) => `${one.path} changed in ${number(one.count)} of ${number(one.live)} courses: ${percent(one.share)}, and ${percent(one.allowed)} are allowed.`,
};

function Held({ one, review, etag, compare, busy, onDecided }) {
  const { id } = one;
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
        <button disabled=${busy} onClick=${compare}>Compare again</button>
        ${DECISIONS.map((one) => html`<button onClick=${() => setDecision(one)}>${one.action}</button>`)}`}>
      <${Tiles}>
        <${Tile} label="Deletions" value=${number(review.deleted)} tone=${review.deleted ? "warn" : ""} />
        ${Object.entries(review.changed).map(([changedPath, n]) => html`<${Tile} label=${changedPath} value=${number(n)} note="courses changed" />`)}
        <${Tile} label="Live courses" value=${number(one.course_count)} />
      <//>
      ${review.exceeded.map((limit) => html`<p><${Text} value=${LIMITS[limit.limit](limit)} /></p>`)}
      ${review.state === "open" && !review.exceeded.length && html`<p>A deletion could not be confirmed before it was published.</p>`}
      ${review.preview?.ok === false && html`<${CheckResult} result=${review.preview} />`}
      ${review.state !== "open"
        ? html`<p class="muted">A decision is being carried out. This page follows it.</p>`
        : html`<p>Check the samples below against the learning system. Then choose one of three:</p>
          <ul class="steps">
            <li><strong>Correct the learning system</strong> if the changes are a mistake. The review ends by itself when a
              poll finds the courses as they were. No event is sent.</li>
            ${DECISIONS.map((one) => html`<li><strong>${one.action}</strong> ${one.when} ${one.meaning}</li>`)}
          </ul>
          <p class="muted">A decision applies to exactly the changes shown here. It is refused if they have changed in the meantime.</p>`}
    <//>
    ${groups.map((group) => html`<${Group} key=${group.title} id=${id} group=${group} />`)}
    ${partly && html`<p class="muted more">The lists show the first ${number(review.items.length)} of the held changes.</p>`}
    ${decision && html`<${Confirm} title=${`${decision.action}: ${one.name}`} action=${decision.action}
      onClose=${() => setDecision(null)} onConfirm=${decide} onStale=${compare}>
      <p>Held: ${[review.deleted && count(review.deleted, "deletion"), changed && `${count(changed, "change")} of paths`].filter(Boolean).join(" and ")}.</p>
      <p>${decision.meaning}</p>
    <//>`}`;
}

const DECISIONS = [
  { word: "publish", action: "Publish", when: "if the changes are right and subscribers should know.", meaning: "Coursewire requests these courses again and publishes an event for each change that still exists. A course that still exists is not reported as deleted." },
  { word: "accept_silently", action: "Accept silently", when: "if the changes are right and nobody needs to know.", meaning: "Coursewire records these changes and publishes no events. Subscribers keep the old data." },
];

// By kind: deletions by their evidence, changes by the set of paths.
function grouped(items) {
  const groups = new Map();
  for (const item of items) {
    const key = item.kind === "deleted" ? item.evidence : item.changed.join(" ");
    if (!groups.has(key)) {
      const title = item.kind === "deleted" ? EVIDENCE[key] : null;
      groups.set(key, { key, title: title ?? `Changes of ${item.changed.join(", ")}`, items: [] });
    }
    groups.get(key).items.push(item);
  }
  for (const { items } of groups.values()) items.sort((a, b) => Boolean(b.upstream) - Boolean(a.upstream));
  return [...groups.values()].sort((a, b) => b.items.length - a.items.length);
}

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
  return html`<${State} state=${state} label=${label} /> ${now.record && html`
    <button class="small" onClick=${() => setOpen(true)}>Record</button>`}
    ${open && html`<${Dialog} title="The record at the upstream" onClose=${() => setOpen(false)} wide><${Json} value=${now.record} /><//>`}`;
}

// The title that the upstream shows now, else that of the last event if it is to be requested.
function Title({ id, of: { course_id, upstream }, request }) {
  const title = courseTitle(upstream?.record);
  const { data } = useLoad((signal) => !title && request && get(path`/v1/integrations/${id}/courses`, { course_id }, signal), [course_id, title]);
  return title ? html`<${Text} brief value=${title} />` : html`<${EventTitle} id=${data?.items?.[0]?.last_event_id} fallback="Show the course" />`;
}

function Group({ id, group }) {
  const [all, setAll] = useState(false);
  const compared = group.items.some((one) => one.upstream);
  const columns = [
    { title: "Course", cell: (one) => html`<a class="strong" href=${url("integrations", id, "courses", { id: one.course_id })}><${Title} id=${id} of=${one} request=${group.items.indexOf(one) < PREVIEWED} /></a>
        <div class="muted"><${Text} value=${one.course_id} mono /></div>` },
    { title: "Id in the learning system", cell: (one) => html`<${Text} value=${one.remote_id} mono />` },
    compared && { title: "At the upstream now", cell: (one) => (one.upstream ? html`<${Upstream} now=${one.upstream} />` : html`<span class="muted">not compared</span>`) },
  ].filter(Boolean);
  return html`<${Card} title=${html`${group.title} <span class="count">${number(group.items.length)}</span>`}>
    <${Table} caption=${group.title} columns=${columns} id=${(one) => one.course_id} rows=${all ? group.items : group.items.slice(0, SAMPLE)} />
    ${!all && group.items.length > SAMPLE && html`<p class="more"><button onClick=${() => setAll(true)}>Show all ${number(group.items.length)}</button></p>`}
  <//>`;
}
