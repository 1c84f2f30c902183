// Shows what went wrong, in the words of the API, and what is being loaded.
import { html } from "../vendor/standalone.module.js";
import { Id, sentence, Text } from "./text.js";

// `shown` are names of fields whose errors stand beside them.
export function ProblemBox({ problem, retry, again = "Try again", shown = [] }) {
  if (!problem) return null;
  const errors = (problem.errors ?? []).filter((one) => !shown.includes(one.field));
  return html`<div class="problem" role="alert">
    <p class="strong"><${Text} value=${problem.title ?? "The console failed"} /></p>
    ${(problem.detail || problem.message) && html`<p><${Text} value=${sentence(problem.detail || problem.message)} /></p>`}
    ${errors.length > 0 &&
    html`<ul>
      ${errors.map(
        (one) => html`<li>
          <code>${one.field}</code>: <${Text} value=${sentence(one.message)} /> <${Text} value=${sentence(one.remedy)} />
        </li>`,
      )}
    </ul>`}
    <div class="row">
      ${retry && html`<button type="button" onClick=${retry}>${again}</button>`}
      ${problem.requestId &&
      html`<span class="muted">Request <${Id} id=${problem.requestId} /></span>`}
    </div>
  </div>`;
}

export const Loading = ({ label = "Loading" }) => html`<div class="loading" role="status"><span class="visually-hidden">${label}</span></div>`;

// What `useLoad` has: `children(data)` once there is some, with a problem of later loads above it.
export function Loaded({ of, children }) {
  if (of.data === undefined) {
    return of.problem
      ? html`<${ProblemBox} problem=${of.problem} retry=${of.reload} />`
      : html`<${Loading} />`;
  }
  return html`<${ProblemBox} problem=${of.problem} retry=${of.reload} />${children(of.data)}`;
}
