// The last hour, day or week in plots.
import { html } from "../vendor/standalone.module.js";
import { get } from "../api.js";
import { useQuery } from "../router.js";
import { useLoad } from "../ui/load.js";
import { Card } from "../ui/page.js";
import { Plot } from "../ui/plot.js";
import { Loaded } from "../ui/problem.js";
import { Choice } from "../ui/table.js";
import { duration, number } from "../ui/text.js";

const HOUR = 3_600_000; // ms
const RANGES = {
  hour: ["The last hour", "minute", HOUR],
  day: ["The last day", "minute", 24 * HOUR],
  week: ["The last week", "hour", 7 * 24 * HOUR],
};
const REFRESH = 30; // seconds: a minute is recorded once

const NAMES = ["events_total", "deliveries_total", "detection_to_receipt_seconds", "deliveries_pending"];
const EVENT_TONES = { "course.created": "ok", "course.updated": "busy", "course.deleted": "off" };
const DELIVERY_TONES = { delivered: "ok", dead: "bad", skipped: "off" };
const QUANTILE_TONES = { 0.5: "busy", 0.99: "warn" };

export function Plots() {
  const [query] = useQuery();
  const range = RANGES[query.get("range")] ? query.get("range") : "hour";
  const [, resolution, length] = RANGES[range];
  const history = useLoad(async (signal) => {
    const since = new Date(Date.now() - length).toISOString();
    const found = await get("/v1/history", { resolution, since, series: NAMES.join() }, signal);
    return range === "day" ? tenMinutes(found) : found;
  }, [range], { every: REFRESH });
  if (history.problem?.status === 404) return null; // this API keeps no history
  return html`<${Card} title="Activity"
    actions=${html`<${Choice} name="range" label="Time" options=${Object.entries(RANGES).map(([name, [text]]) => [name === "hour" ? "" : name, text])} />`}>
    <${Loaded} of=${history}>${(found) => html`<${Figures} history=${found} />`}<//>
  <//>`;
}

function Figures({ history: { times, series } }) {
  const of = (name, label, tones) =>
    series
      .filter((one) => one.name === name && (tones[one.labels[label]] || one.values.some(Boolean)))
      .map((one) => ({ label: one.labels[label] ?? "", tone: tones[one.labels[label]] ?? "warn", values: one.values }));
  if (!series.some((one) => one.values.filter((value) => value !== null).length > 2))
    return html`<p class="muted">The plots begin in some minutes. The scheduler records once a minute.</p>`;
  // What is not about courses is rare, and one series.
  const types = of("events_total", "type", EVENT_TONES);
  const operational = types.filter((one) => !EVENT_TONES[one.label]).map((one) => one.values);
  const events = [...types.filter((one) => EVENT_TONES[one.label]), ...(operational.length
    ? [{ label: "others", tone: "warn", values: operational.reduce((a, b) => a.map((value, at) => (value === null ? b[at] : value + b[at]))) }] : [])];
  const latency = of("detection_to_receipt_seconds", "quantile", QUANTILE_TONES)
    .filter((one) => QUANTILE_TONES[one.label])
    .map((one) => ({ ...one, label: one.label === "0.5" ? "median" : "99th percentile" }));
  return html`<div class="grid">
    <${Plot} title="Events" times=${times} series=${events} kind="bars" />
    <${Plot} title="Deliveries that ended" times=${times} series=${of("deliveries_total", "state", DELIVERY_TONES)} kind="bars" />
    <${Plot} title="From detection to receipt" times=${times} series=${latency} format=${duration} />
    <${Plot} title="Pending deliveries" times=${times} format=${number}
      series=${of("deliveries_pending", "", { undefined: "busy" }).map((one) => ({ ...one, label: "pending" }))} />
  </div>`;
}

// A day of minutes as periods of ten, which a plot has room for: counters add up, the others keep
// their last value, quantiles their highest.
function tenMinutes({ times, series, ...rest }) {
  const groups = new Map();
  times.forEach((time, at) => {
    const end = Math.ceil(time / 600) * 600;
    groups.set(end, [...(groups.get(end) ?? []), at]);
  });
  const reduced = (kind, values) => {
    const known = values.filter((value) => value !== null);
    if (!known.length) return null;
    if (kind === "counter") return known.length < values.length ? null : known.reduce((sum, value) => sum + value, 0);
    return kind === "quantile" ? Math.max(...known) : known.at(-1);
  };
  return {
    ...rest,
    times: [...groups.keys()],
    series: series.map((one) => ({
      ...one,
      values: [...groups.values()].map((group) => reduced(one.kind, group.map((at) => one.values[at]))),
    })),
  };
}
