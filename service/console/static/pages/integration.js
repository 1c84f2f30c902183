// Shows one integration: how its polls go, what fails, and what a person can do.
import { html, useState } from "../vendor/standalone.module.js";
import { path, send } from "../api.js";
import { navigate, url } from "../router.js";
import { isAdmin } from "../session.js";
import { Confirm, Dialog, notify } from "../ui/dialog.js";
import { changedFields, Form, useForm } from "../ui/form.js";
import { useLoad } from "../ui/load.js";
import { Card, Facts, Page, Tile, Tiles } from "../ui/page.js";
import { Loaded, ProblemBox } from "../ui/problem.js";
import { Tabs } from "../ui/table.js";
import { Chips, count, duration, Empty, Id, Labels, number, Outside, percent, sentence, short, State, Text, Time } from "../ui/text.js";
import { bodyOf, CheckResult, initialValues, IntegrationFields } from "./integration_form.js";
import { Courses } from "./courses.js";
import { Credential } from "./credential.js";
import { Polls } from "./polls.js";
import { Review } from "./review.js";

const REFRESH = 3; // seconds

// [label, page, page of the documentation] of each tab.
const TABS = {
  "": ["Polls", Main, "operations/troubleshooting"],
  review: ["Review", Review, "reviews"],
  courses: ["Courses", Courses, "glossary"],
};
const NoPage = () => html`<${Empty} title="Page not found">Choose one of the pages above.<//>`;

export function Integration({ id, tab = "" }) {
  const shown = useLoad(async (signal) => {
    const { data, etag } = await send("GET", path`/v1/integrations/${id}`, { signal });
    return { one: data, etag };
  }, [id], { every: REFRESH });
  const crumbs = [[url("integrations"), "Integrations"]];
  if (!shown.data) return html`<${Page} title="Integration" crumbs=${crumbs}><${Loaded} of=${shown} /><//>`;
  const { one, etag } = shown.data;
  const [label, page, doc] = TABS[tab] ?? ["Page not found", NoPage];
  return html`<${Page} title=${tab ? `${label} of ${one.name}` : one.name} crumbs=${crumbs} doc=${doc}
    heading=${html`<${Text} brief value=${one.name} /> <${State} state=${one.state} />`}
    actions=${isAdmin() && html`<${Actions} one=${one} etag=${etag} reload=${shown.reload} />`}>
    <${Tabs} label="Integration" tabs=${Object.entries(TABS).map(([name, [text]]) =>
      [["integrations", id, ...(name ? [name] : [])], text, name === "review" && one.held])} />
    <${ProblemBox} problem=${shown.problem} retry=${shown.reload} />
    <${page} one=${one} />
  <//>`;
}

function Main({ one }) {
  return html`
    <${Trouble} one=${one} />
    <${Tiles}>
      <${Tile} label="Courses" value=${short(one.course_count)} href=${url("integrations", one.id, "courses")} />
      <${Tile} label="Held for review" value=${short(one.held)} tone=${one.held ? "warn" : ""} href=${url("integrations", one.id, "review")} />
      <${Tile} label="Quarantined" value=${short(one.quarantined)} tone=${one.quarantined ? "warn" : ""}
        href=${url("integrations", one.id, "courses", { state: "quarantined" })} />
      <${Tile} label="Last poll" value=${html`<${Time} at=${one.last_poll?.finished_at ?? one.last_poll?.started_at} ago fallback="never" />`}
        note=${one.last_poll && `${one.last_poll.kind}, ${one.last_poll.state}`} />
      <${Tile} label="Next poll" value=${html`<${Time} at=${one.next_poll_at} ago next fallback=${one.paused ? "paused" : "now"} />`} />
    <//>
    <${Polls} one=${one} />
    <${Card} title="Settings"><${Settings} one=${one} /><//>`;
}

function Trouble({ one }) {
  return html`
    ${one.error && html`<div class="problem" role="alert">
      <p class="strong"><${Text} value=${sentence(one.error.message)} /></p>
      <p><${Text} value=${sentence(one.error.remedy)} /></p>
      <p class="muted"><code>${one.error.code}</code>${one.error.status ? ` · HTTP ${one.error.status}` : ""} · failing since
        ${" "}<${Time} at=${one.error.since} />${one.error.attention ? " · polls wait for you" : " · polls try again by themselves"}
        ${one.error.log_url && html` · <${Outside} href=${one.error.log_url}>log of the upstream<//>`}</p>
    </div>`}
    ${one.held > 0 && html`<div class="notice"><p><strong>${count(one.held, "change")} held for a decision.</strong>
      ${" "}One poll found more changes than the guards allow. Nothing of them is published until you decide.
      ${" "}<a href=${url("integrations", one.id, "review")}>Review</a></p></div>`}
    ${one.notices.map((notice) => html`<div class="notice"><p><${Text} value=${sentence(notice.message)} />
      ${" "}<span class="muted">since <${Time} at=${notice.since} /></span></p></div>`)}`;
}

function Settings({ one }) {
  const { guards } = one;
  return html`<${Facts} items=${[
    ["Id", html`<${Id} id=${one.id} />`],
    ["Integration id at the upstream", html`<${Text} value=${one.upstream_id} mono />`],
    ["Credential", html`<${Credential} id=${one.credential_id} />`],
    ["Your reference", html`<${Text} value=${one.external_id} />`],
    ["Labels", html`<${Labels} labels=${one.labels} />`],
    ["Polls for changed courses", `every ${duration(one.delta_interval_seconds)}`],
    ["Polls for all courses", `every ${duration(one.full_interval_seconds)}`],
    ["First full poll", one.baseline === "silent" ? "reports nothing" : "reports every course as created"],
    ["Ignored fields", html`<${Chips} items=${one.ignore_paths} none="none" />`],
    ["Raw data of the learning system", one.track_remote_data ? "changes are reported" : "changes are not reported"],
    ["Deletions held for review", `more than ${number(guards.deleted_count)} and ${percent(guards.deleted_share)}, or ${percent(guards.deleted_share_max)}`],
    ["Changes held for review", `from ${number(guards.changed_count)} and more than ${percent(guards.changed_share)} in one path`],
    ["Clock of the upstream", one.clock_skew_seconds === null ? "agrees" : `${duration(Math.abs(one.clock_skew_seconds))} ${one.clock_skew_seconds > 0 ? "ahead" : "behind"}`],
    ["Registered", html`<${Time} at=${one.created_at} />`],
    ["Changed", html`<${Time} at=${one.updated_at} />`],
  ]} />`;
}

function Actions({ one, etag, reload }) {
  const [open, setOpen] = useState(null);
  const close = () => setOpen(null);
  const act = async (work, text) => {
    await work();
    notify(text);
    reload();
  };
  const poll = (kind) => act(
    () => send("POST", path`/v1/integrations/${one.id}/polls`, { body: { kind } }),
    `A ${kind} poll is requested.`,
  );
  const [problem, setProblem] = useState(null);
  const pollNow = (kind) => poll(kind).then(() => setProblem(null), setProblem);
  const patch = (body, tag) => send("PATCH", path`/v1/integrations/${one.id}`, { body, etag: tag });
  return html`
    <button class="primary" onClick=${() => pollNow("delta")}>Poll now</button>
    <button onClick=${() => pollNow("full")}>Full poll</button>
    <button onClick=${() => setOpen("check")}>Check connection</button>
    <button onClick=${() => setOpen("edit")}>Edit</button>
    <button onClick=${() => setOpen("pause")}>${one.paused ? "Resume" : "Pause"}</button>
    <button class="danger" onClick=${() => setOpen("delete")}>Delete</button>
    <${ProblemBox} problem=${problem} />
    ${open === "check" && html`<${Check} one=${one} onClose=${close} />`}
    ${open === "edit" && html`<${Edit} one=${one} etag=${etag} patch=${patch} onClose=${close} reload=${reload} />`}
    ${open === "pause" && html`<${Confirm} title=${`${one.paused ? "Resume" : "Pause"} ${one.name}?`}
      action=${one.paused ? "Resume" : "Pause"} onClose=${close}
      onConfirm=${() => act(() => patch({ paused: !one.paused }, etag), one.paused ? "Polling resumed." : "Polling is paused.")}>
      ${one.paused
        ? html`<p>The next poll starts immediately and detects the changes made in the meantime.</p>`
        : html`<p>Polls stop until you resume the integration. Changes in the meantime are detected then.</p>`}
    <//>`}
    ${open === "delete" && html`<${Confirm} title=${`Delete ${one.name}?`} action="Delete" danger onClose=${close}
      onConfirm=${async () => {
        await send("DELETE", path`/v1/integrations/${one.id}`, { etag });
        notify(`${one.name} is deleted.`);
        navigate(url("integrations"));
      }}>
      <p>Polling ends, and what is known of its ${count(one.course_count, "course")} is discarded. Nothing is
        published about it. Events that are already pending are still delivered.</p>
    <//>`}`;
}

function Check({ one, onClose }) {
  const result = useLoad(async (signal) =>
    (await send("POST", path`/v1/integrations/${one.id}/check`, { signal })).data, [one.id]);
  return html`<${Dialog} title=${`Check ${one.name}`} onClose=${onClose}>
    <${Loaded} of=${result}>${(found) => html`<${CheckResult} result=${found} />`}<//>
    <footer><button onClick=${result.reload}>Check again</button>
      <button class="primary" onClick=${onClose}>Done</button></footer>
  <//>`;
}

function Edit({ one: latest, etag, patch, onClose, reload }) {
  // As it was when the form was opened: what somebody else saves meanwhile is not overwritten.
  const [{ one, tag }] = useState({ one: latest, tag: etag });
  const form = useForm(initialValues(one));
  const save = async (values) => {
    await patch(changedFields(bodyOf(initialValues(one)), bodyOf(values)), tag);
    notify(`${values.name} is saved.`);
    reload();
    onClose();
  };
  return html`<${Dialog} title=${`Edit ${one.name}`} onClose=${onClose} wide>
    <${Form} form=${form} onSubmit=${save} action="Save" onCancel=${onClose}>
      <${IntegrationFields} form=${form} />
    <//>
  <//>`;
}
