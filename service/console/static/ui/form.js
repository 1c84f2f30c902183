// Forms: fields with labels, and errors of the API beside the fields that they are about.
import { html, useRef, useState } from "../vendor/standalone.module.js";
import { ProblemBox } from "./problem.js";
import { sentence, Text } from "./text.js";

let numbers = 0;

// const form = useForm({ name: "" });
// html`<${Form} form=${form} onSubmit=${(values) => send(...)} action="Save">
//        <${Field} form=${form} name="name" label="Name" hint="a name for people" />`
// `onSubmit` may be asynchronous and raise Problem.
export function useForm(initial) {
  const [values, setValues] = useState(initial);
  const [state, setState] = useState({});
  const names = useRef(new Set()).current;
  const errorOf = (name) => {
    const found = (state.problem?.errors ?? []).filter((one) => covers(name, one.field));
    return found.length ? found : null;
  };
  const run = async (work) => {
    setState({ busy: true });
    try {
      const result = await work(values);
      setState({});
      return result;
    } catch (problem) {
      setState({ problem });
      return undefined;
    }
  };
  const set = (changes) => setValues((old) => ({ ...old, ...changes }));
  return { values, set, names, errorOf, run, problem: state.problem, busy: state.busy };
}

const covers = (name, field) => field === name || field.startsWith(`${name}.`) || field.startsWith(`${name}[`);

export function Form({ form, onSubmit, action, danger = false, onCancel, more, children }) {
  const submit = (event) => {
    event.preventDefault();
    form.run(onSubmit);
  };
  const shown = (form.problem?.errors ?? [])
    .map((one) => one.field)
    .filter((field) => [...form.names].some((name) => covers(name, field)));
  return html`<form onSubmit=${submit} novalidate>
    ${children}
    <${ProblemBox} problem=${form.problem} shown=${shown} />
    <footer>
      ${more}
      ${onCancel && html`<button type="button" onClick=${onCancel}>Cancel</button>`}
      <button type="submit" class=${danger ? "danger" : "primary"} disabled=${form.busy}>${action}</button>
    </footer>
  </form>`;
}

// `type`: text, url, password, number, textarea, select, checkbox, datetime-local.
// `options` of a select: [[value, label]]. Other properties go to the control.
export function Field({ form, name, label, hint, type = "text", options, ...rest }) {
  form.names.add(name);
  const id = useRef(`field-${++numbers}`).current;
  const errors = form.errorOf(name);
  const value = form.values[name];
  const said = [hint && `${id}-hint`, errors && `${id}-error`].filter(Boolean).join(" ");
  const control = {
    id,
    name,
    "aria-describedby": said || undefined,
    "aria-invalid": errors ? "true" : undefined,
    ...rest,
  };
  const onInput = (event) => form.set({ [name]: event.target.value });
  const below = html`${hint && html`<p class="hint" id="${id}-hint">${hint}</p>`}
    ${errors &&
    html`<div class="error" id="${id}-error">
      ${errors.map(
        (one) => html`<p><${Text} value=${sentence(one.message)} /> <${Text} value=${sentence(one.remedy)} fallback="" /></p>`,
      )}
    </div>`}`;
  if (type === "checkbox") {
    const onChange = (event) => form.set({ [name]: event.target.checked });
    return html`<div class="field check">
      <input type="checkbox" checked=${value} onChange=${onChange} ...${control} />
      <label for=${id}>${label}</label>${below}
    </div>`;
  }
  let input;
  if (type === "select") {
    input = html`<select value=${value} onChange=${onInput} ...${control}>
      ${options.map(([one, text]) => html`<option value=${one} selected=${one === value}>${text}</option>`)}
    </select>`;
  } else if (type === "textarea") {
    input = html`<textarea rows="3" value=${value} onInput=${onInput} ...${control}></textarea>`;
  } else {
    input = html`<input type=${type} value=${value} onInput=${onInput} ...${control} />`;
  }
  return html`<div class="field"><label for=${id}>${label}</label>${input}${below}</div>`;
}

// The fields of a body that differ from those before.
export const changedFields = (before, after) =>
  Object.fromEntries(Object.entries(after).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));

// Labels as people write them, one NAME=VALUE a line, and back.
export const labelsText = (labels) =>
  Object.entries(labels ?? {}).map(([name, value]) => `${name}=${value}`).join("\n");

export const readLabels = (text) =>
  Object.fromEntries(
    text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    }),
  );

// Items as people write them, separated by commas or lines.
export const readList = (text) => text.split(/[\n,]/).map((one) => one.trim()).filter(Boolean);
