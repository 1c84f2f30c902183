// Plots of figures over time. Colours come from the stylesheet.
import { html, useEffect, useRef } from "../vendor/standalone.module.js";
import { onChange } from "../session.js";
import { number } from "./text.js";

// A colour of the stylesheet as the browser computes it: canvases know no light-dark().
function computed(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// times: epoch seconds; series: [{ label, values, tone }], a value null where nothing is known.
// kind: "line" or "bars" (stacked). `format` writes a value.
export function Plot({ title, times, series, kind = "line", format = number, height = 180 }) {
  const ref = useRef(null);
  useEffect(() => {
    const box = ref.current;
    let plot = null;
    const draw = () => {
      plot?.destroy();
      plot = new globalThis.uPlot(options(box, { series, kind, format, height }), stacked(times, series, kind), box);
    };
    draw();
    const resized = new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height }));
    resized.observe(box);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    const forget = onChange(draw);
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", draw);
      forget();
      plot.destroy();
    };
  }, [times, series, kind, height]);
  const last = series.map((one) => `${one.label} ${format(one.values.findLast((v) => v !== null))}`);
  return html`<figure class="plot">
    <figcaption>${title}</figcaption>
    <div ref=${ref} role="img" aria-label="${title}. Latest: ${last.join(", ")}"></div>
  </figure>`;
}

function stacked(times, series, kind) {
  if (kind !== "bars") return [times, ...series.map((one) => one.values)];
  const sums = times.map(() => 0);
  // The highest stack is drawn first, so that lower ones cover it.
  return [times, ...series.map((one) => one.values.map((value, at) => (value === null ? null : (sums[at] += value)))).reverse()];
}

function options(box, { series, kind, format, height }) {
  const axis = { stroke: computed("--muted"), grid: { stroke: computed("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const drawn = series.map((one) => {
    const stroke = computed(`--${one.tone}`);
    const paths = kind === "bars" ? globalThis.uPlot.paths.bars({ size: [0.8, 24] }) : undefined;
    return { label: one.label, stroke, fill: kind === "bars" ? stroke : undefined, width: kind === "bars" ? 0 : 2, paths, points: { show: false }, value: (_plot, _sum, _series, at) => format(one.values[at ?? one.values.length - 1]) };
  });
  return {
    width: box.clientWidth || 300,
    height,
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    legend: { live: true },
    scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [axis, { ...axis, size: 56, values: (_plot, ticks) => ticks.map(format) }],
    series: [{ value: (_plot, at) => (at ? new Date(at * 1000).toLocaleString() : "latest") }, ...(kind === "bars" ? drawn.reverse() : drawn)],
  };
}

// A line without axes, such as a success rate over time.
export function Spark({ values, label, tone = "ok", max = Math.max(...values, 1) }) {
  if (values.length < 2) return html`<span class="muted">–</span>`;
  const points = values.map((value, at) => `${(at * 100) / (values.length - 1)},${22 - (20 * value) / max}`);
  return html`<svg class="spark ${tone}" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${label}>
    <polyline points=${points.join(" ")} /></svg>`;
}
