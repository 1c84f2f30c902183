// What a page is made of: its head, cards, tiles, facts, progress.
import { html, useEffect } from "../vendor/standalone.module.js";
import { BASE } from "../router.js";
import { Text, visible } from "./text.js";

const SERVED = document.documentElement.dataset.docs; // "" where the documentation is not served

// Where the documentation has a topic: a page that is served, or a file of the project.
export const Doc = ({ page, text = page.split("/").pop().replaceAll("-", " ") }) => html`Documentation: ${SERVED
  ? html`<a href=${`${BASE}../docs/${page}.html`}>${text}</a>`
  : html`<code>${page === "index" ? "README" : `docs/${page}`}.md</code>`}`;

// `crumbs`: [[href, text]] that lead here; `actions`: buttons; `title` is text, `heading` may be more;
// `doc`: a page of the documentation.
export function Page({ title, heading, crumbs = [], actions, doc, children }) {
  useEffect(() => {
    document.title = `${visible(title).slice(0, 100)} · Coursewire`;
  }, [title]);
  return html`<div class="page-head">
      <div>
        ${crumbs.length > 0 &&
        html`<nav class="crumbs" aria-label="Where you are">
          ${crumbs.map(([href, text]) => html`<a href=${href}>${text}</a>`)}
        </nav>`}
        <h1 tabindex="-1">${heading ?? html`<${Text} brief value=${title} />`}</h1>
      </div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>
    ${children}
    ${doc && html`<p class="doc muted"><${Doc} page=${doc} /></p>`}`;
}

export function Card({ title, actions, class: name = "", children }) {
  return html`<section class="card ${name}">
    ${(title || actions) &&
    html`<header>${title && html`<h2>${title}</h2>`}${actions && html`<div class="actions">${actions}</div>`}</header>`}
    ${children}
  </section>`;
}

// A figure: tone colours it; href leads to what it counts.
export function Tile({ label, value, note, tone = "", href }) {
  const inside = html`<span class="label">${label}</span><span class="value">${value}</span>
    ${note && html`<span class="note">${note}</span>`}`;
  return href
    ? html`<a class="tile ${tone}" href=${href}>${inside}</a>`
    : html`<div class="tile ${tone}">${inside}</div>`;
}

export const Tiles = ({ children }) => html`<div class="tiles">${children}</div>`;

// items: [[name, content]]; those without content are left out.
export const Facts = ({ items }) => html`<dl class="facts">
  ${items
    .filter(([, content]) => content !== undefined && content !== null)
    .map(([name, content]) => html`<div><dt>${name}</dt><dd>${content}</dd></div>`)}
</dl>`;

// `value` of `max`; without `max` only that it goes on.
export const Progress = ({ label, value, max }) => html`<div class="progress">
  <span>${label}</span>
  <progress aria-label=${label} value=${max ? value : undefined} max=${max || undefined}></progress>
</div>`;
