// Plots of figures over time, drawn as SVG. Colours come from the stylesheet.
import { html, useState } from "../vendor/standalone.module.js";
import { number } from "./text.js";

const TALL = 100; // units of the drawing, whose width is one unit for each time
const DAY = 86_400; // seconds

// times: epoch seconds; series: [{ label, values, tone }], a value null where nothing is known.
// kind: "line" or "bars" (stacked). `format` writes a value. The values under the pointer, or under
// the place that arrow keys move to, stand below; else the sums of bars and the latest of lines.
export function Plot({ title, times, series, kind = "line", format = number }) {
  const [at, setAt] = useState(null);
  const bars = kind === "bars";
  const tops = bars ? stacked(series) : series.map((one) => one.values);
  const high = roundUp(Math.max(format === number ? 2 : 0, ...tops.flat()));
  const y = (value) => TALL * (1 - value / high);
  const sum = (values) => values.reduce((all, value) => (value === null ? all : (all ?? 0) + value), null);
  const shown = ({ values }) =>
    at !== null ? values[at] : bars ? sum(values) : values.findLast((value) => value !== null);
  const when = at !== null ? new Date(times[at] * 1000).toLocaleString() : bars ? "In all" : "Latest";
  const point = (event) => {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    setAt(Math.max(0, Math.min(times.length - 1, Math.floor(((event.clientX - left) / width) * times.length))));
  };
  const press = ({ key }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (step) setAt(Math.max(0, Math.min(times.length - 1, (at ?? times.length) + step)));
  };
  const drawn = series.map((one, n) => [one.tone, (bars ? barPath : linePath)(tops[n], y)]);
  const written = series.map((one) => `${one.label} ${format(shown(one))}`);
  return html`<figure class="plot">
    <figcaption>${title}</figcaption>
    <div class="scale" aria-hidden="true">${[1, 0.5, 0].map((part) => html`<span>${format(high * part)}</span>`)}</div>
    <div class="drawing" role="img" tabindex="0" aria-label="${title}. ${when}: ${written.join(", ")}"
      onPointerMove=${point} onPointerLeave=${() => setAt(null)} onKeyDown=${press} onBlur=${() => setAt(null)}>
      <svg viewBox="0 0 ${times.length} ${TALL}" preserveAspectRatio="none" aria-hidden="true">
        <path class="grid-lines" d="M0 0H${times.length}M0 50H${times.length}M0 100H${times.length}" />
        ${drawn.reverse().map(([tone, d]) => html`<path class="${kind} ${tone}" d=${d} />`)}
        ${at !== null && html`<path class="cursor" d="M${at + 0.5} 0V${TALL}" />`}
      </svg>
    </div>
    <div class="times" aria-hidden="true">${labels(times).map((text) => html`<span>${text}</span>`)}</div>
    <p class="key muted">
      <span>${when}</span>
      ${series.map((one) => html`<span><i class=${one.tone}></i>${one.label} <b>${format(shown(one))}</b></span>`)}
    </p>
  </figure>`;
}

// The top of each bar where the bars of the series stand on each other.
function stacked(series) {
  const sums = [];
  return series.map((one) =>
    one.values.map((value, at) => (value === null ? null : (sums[at] = (sums[at] ?? 0) + value))),
  );
}

function roundUp(value) {
  const size = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 4, 6, 8, 10].map((step) => step * size).find((step) => step >= value);
}

// A lower bar covers the foot of a higher one.
const barPath = (tops, y) =>
  tops.map((top, at) => (top ? `M${at + 0.1} ${TALL}V${y(top).toFixed(1)}h.8V${TALL}z` : "")).join("");

// A value without neighbours is a dot.
const linePath = (values, y) =>
  values
    .map((value, at) => (value === null ? "" : `${at && values[at - 1] !== null ? "L" : "M"}${at + 0.5} ${y(value).toFixed(1)}h.001`))
    .join("");

function labels(times) {
  if (!times.length) return [];
  const long = times.at(-1) - times[0] > 2 * DAY;
  const written = new Intl.DateTimeFormat(undefined, long ? { dateStyle: "short" } : { timeStyle: "short" });
  return [0, 1 / 3, 2 / 3, 1].map((part) => written.format(times[Math.round(part * (times.length - 1))] * 1000));
}

// A line without axes, such as a success rate over time.
export function Spark({ values, label, tone = "ok", max = Math.max(...values, 1) }) {
  if (values.length < 2) return html`<span class="muted">–</span>`;
  const points = values.map((value, at) => `${(at * 100) / (values.length - 1)},${22 - (20 * value) / max}`);
  return html`<svg class="spark ${tone}" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${label}>
    <polyline points=${points.join(" ")} /></svg>`;
}
