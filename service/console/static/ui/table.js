// Tables, which become cards on narrow screens, and steps through pages of a list.
import { html } from "../vendor/standalone.module.js";
import { url, useQuery } from "../router.js";

// columns: [{ title, cell: (row) => content, number: true if it holds numbers }].
export function Table({ caption, columns, rows, id = (row) => row.id, empty, busy = false }) {
  if (!rows.length) return empty ?? html`<p class="muted">Nothing here.</p>`;
  return html`<div class="table" tabindex="0" role="region" aria-label=${caption}>
    <table role="table" aria-busy=${busy ? "true" : undefined}>
      <caption class="visually-hidden">${caption}</caption>
      <thead role="rowgroup">
        <tr role="row">
          ${columns.map((one) => html`<th role="columnheader" scope="col" class=${one.number ? "number" : ""}>${one.title}</th>`)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.map(
          (row) => html`<tr role="row" key=${id(row)}>
            ${columns.map(
              (one) => html`<td role="cell" data-title=${one.title} class=${one.number ? "number" : ""}>
                ${one.cell(row)}
              </td>`,
            )}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

// What an empty page shows: the search may go on behind it.
export const emptyPage = (page, empty) =>
  page.next ? html`<p class="muted">No match in what was searched so far. The next page continues the search.</p>` : empty;

// The steps of a list whose page is `page` ({ next }). The cursor stands in the address as
// `after`, which the page passes on to the API.
export function Pager({ page, name = "after" }) {
  const [query] = useQuery();
  const after = query.get(name);
  if (!after && !page.next) return null;
  const at = (cursor) => {
    const next = new URLSearchParams(query);
    if (cursor) next.set(name, cursor);
    else next.delete(name);
    return next.size ? `?${next}` : location.pathname;
  };
  return html`<nav class="pager" aria-label="Pages">
    ${after && html`<a class="button" href=${at(null)}>First page</a>`}
    ${after && history.state?.paged &&
    html`<button type="button" onClick=${() => history.back()}>Previous</button>`}
    ${page.next && html`<a class="button" data-paged href=${at(page.next)}>Next</a>`}
  </nav>`;
}

// A field that searches as one types, kept in the address under `name`.
export function Search({ name = "name", label, placeholder }) {
  const [query, setQuery] = useQuery();
  let timer;
  const typed = (event) => {
    clearTimeout(timer);
    const { value } = event.target;
    timer = setTimeout(() => setQuery({ [name]: value.trim() }, { replace: true }), 250);
  };
  return html`<input type="search" aria-label=${label} placeholder=${placeholder ?? label}
    value=${query.get(name) ?? ""} onInput=${typed} />`;
}

// A choice kept in the address under `name`. options: [[value, label]]; "" is all.
export function Choice({ name, label, options }) {
  const [query, setQuery] = useQuery();
  const chosen = query.get(name) ?? "";
  return html`<select aria-label=${label} value=${chosen}
    onChange=${(event) => setQuery({ [name]: event.target.value })}>
    ${options.map(([value, text]) => html`<option value=${value} selected=${value === chosen}>${text}</option>`)}
  </select>`;
}

// Pages of one thing: tabs=[[path parts, label, count]].
export function Tabs({ label, tabs }) {
  return html`<nav class="tabs" aria-label=${label}>
    ${tabs.map(([parts, text, n]) => {
      const href = url(...parts);
      const current = href.split("?")[0] === location.pathname;
      return html`<a href=${href} aria-current=${current ? "page" : undefined}>${text}${n
        ? html` <span class="count">${n}</span>`
        : ""}</a>`;
    })}
  </nav>`;
}
