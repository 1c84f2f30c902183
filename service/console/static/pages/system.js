// The processes, the queues and Redis; stops and starts polling and delivery.
import { html, useState } from "../vendor/standalone.module.js";
import { get, send } from "../api.js";
import { isAdmin } from "../session.js";
import { Confirm, notify } from "../ui/dialog.js";
import { useLoad } from "../ui/load.js";
import { Card, Facts, Page } from "../ui/page.js";
import { Loaded } from "../ui/problem.js";
import { Table } from "../ui/table.js";
import { bytes, Chips, duration, Empty, number, percent, State, Text, Time } from "../ui/text.js";
import { Health } from "./overview.js";

const REFRESH = 3; // seconds
const SILENT = 10; // seconds, after which a scheduler counts as away

const ACTIVITIES = [
  ["polling", "Polling", "No poll starts, and running polls stop after their current page. Changes at the upstream are detected when polling resumes.", "Due polls start within a second."],
  ["delivery", "Delivery", "Sending stops. Events are still detected and queued in the outboxes until their retention ends.", "Queued events are sent, in order."],
];

export function System() {
  const status = useLoad((signal) => get("/v1/status", {}, signal), [], { every: REFRESH });
  return html`<${Page} title="System" doc="operations/monitoring">
    <${Loaded} of=${status}>${(found) => html`
      <${Health} status=${found} />
      ${found.paused && html`<${Switches} status=${found} reload=${status.reload} />`}
      <div class="grid">
        <${Redis} redis=${found.redis} />
        ${found.polls && html`<${Work} status=${found} />`}
      </div>
      <${Processes} status=${found} />`}<//>
  <//>`;
}

function Switches({ status, reload }) {
  const [asked, setAsked] = useState(null);
  const act = async () => {
    const [what, name] = asked;
    const verb = status.paused[what] ? "resume" : "pause";
    await send("POST", `/v1/${verb}`, { body: { what } });
    notify(`${name} ${verb === "pause" ? "is paused" : "resumed"}.`);
    reload();
  };
  const paused = asked && status.paused[asked[0]];
  return html`<div class="grid switches">
    ${ACTIVITIES.map((one) => {
      const since = status.paused[one[0]];
      return html`<${Card} title=${html`${one[1]} <${State} state=${since ? "paused" : "active"} label=${since ? "paused" : "on"} />`}
        actions=${isAdmin() && html`<button class=${since ? "primary" : ""} onClick=${() => setAsked(one)}>
          ${since ? "Resume" : "Pause"} ${one[0]}</button>`}>
        <p class="muted">${since ? html`Paused since <${Time} at=${since} />.` : one[0] === "polling" ? "Coursewire polls the upstreams." : "Events are pushed to subscribers."}</p>
      <//>`;
    })}
    ${asked && html`<${Confirm} title="${paused ? "Resume" : "Pause"} ${asked[0]} for the whole service?" action="${paused ? "Resume" : "Pause"} ${asked[0]}"
      danger=${!paused} onConfirm=${act} onClose=${() => setAsked(null)}>
      <p>${paused ? asked[3] : asked[2]}</p>
      <p>${paused ? "" : "No changes are lost. The pause lasts until somebody resumes the activity, even across restarts."}</p>
    <//>`}
  </div>`;
}

const PERSISTENCE = {
  aof: "append-only file",
  snapshots: "snapshots: a crash loses what came since the last one",
  none: "none: a restart loses everything",
  unknown: "unknown",
};

function Redis({ redis }) {
  if (!redis.up) return html`<${Card} title=${html`Redis <${State} state="down" />`}><p>Redis does not answer.</p><//>`;
  const share = redis.memory_share;
  return html`<${Card} title=${html`Redis <${State} state="up" />`}>
    <${Facts} items=${[
      ["Server", `${redis.server} ${redis.version}`],
      ["Running for", duration(redis.uptime_seconds)],
      ["Memory", html`${bytes(redis.memory_used_bytes)}${redis.memory_limit_bytes ? ` of ${bytes(redis.memory_limit_bytes)}` : ", no limit"}
        ${share !== null && share !== undefined && html` (${percent(share)}) <meter aria-label="Memory in use" min="0" max="1" high="0.8" value=${share}></meter>`}`],
      ["Persistence", html`${PERSISTENCE[redis.persistence] ?? redis.persistence}${redis.aof_ok === false ? html` <${State} state="failed" label="cannot be written" />` : ""}`],
      ["When memory is full", redis.eviction_policy && (redis.eviction_policy === "noeviction" ? "writes are refused, nothing is dropped" : `drops keys by ${redis.eviction_policy}`)],
    ]} />
  <//>`;
}

function Work({ status }) {
  const rows = [["Polls", status.polls], ["Outboxes", status.outboxes]];
  return html`<${Card} title="Work">
    <${Table} caption="Work" rows=${rows} id=${([name]) => name} columns=${[
      { title: "Kind", cell: ([name]) => html`<span class="strong">${name}</span>` },
      { title: "Due", number: true, cell: ([, work]) => number(work.due) },
      { title: "Claimed", number: true, cell: ([, work]) => number(work.claimed) },
      { title: "Being worked on", number: true, cell: ([, work]) => number(work.leased) },
      { title: "Oldest due", cell: ([, work]) => html`<${Time} at=${work.oldest_due_at} ago fallback="none" />` },
    ]} />
  <//>`;
}

function Processes({ status }) {
  const now = new Date(status.time);
  const lag = (at) => Math.max(0, (now - new Date(at)) / 1000);
  const processes = [
    ...status.schedulers.map((one) => ({
      name: one.name, kind: "scheduler", at: one.last_turn_at,
      state: lag(one.last_turn_at) > SILENT ? "down" : "active",
    })),
    ...status.workers.map((one) => ({
      name: one.name, kind: "worker", state: one.state, at: one.last_heartbeat_at,
      note: [one.host, one.pid && `process ${one.pid}`].filter(Boolean).join(", "), queues: one.queues,
    })),
  ];
  return html`
    <${Card} title="Processes">
      <${Table} caption="Processes" rows=${processes} id=${(one) => one.kind + one.name} columns=${[
        { title: "Process", cell: (one) => html`<span class="strong">${one.kind}</span> <div class="muted"><${Text} value=${one.name} mono /></div>` },
        { title: "State", cell: (one) => html`<${State} state=${one.state} />` },
        { title: "Last sign of life", cell: (one) => html`<${Time} at=${one.at} ago />` },
        { title: "Where", cell: (one) => html`<${Text} value=${one.note} />` },
        { title: "Queues", cell: (one) => html`<${Chips} items=${one.queues} none="" />` },
      ]} empty=${html`<${Empty} title="No process is running.">Start <code>coursewire scheduler</code> and ${" "}<code>coursewire worker</code>.<//>`} />
    <//>
    <${Card} title="Queues">
      <${Table} caption="Queues" rows=${status.queues} id=${(one) => one.name} columns=${[
        { title: "Queue", cell: (one) => html`<${Text} value=${one.name} mono />` },
        { title: "Waiting", number: true, cell: (one) => number(one.queued) },
        { title: "Running", number: true, cell: (one) => number(one.started) },
        { title: "Failed in a day", number: true, cell: (one) => html`<span class=${one.failed ? "bad" : ""}>${number(one.failed)}</span>` },
      ]} />
    <//>`;
}
