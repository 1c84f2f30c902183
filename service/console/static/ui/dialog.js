// Dialogs, questions before what cannot be taken back, and short notices.
import { html, useLayoutEffect, useRef, useState } from "../vendor/standalone.module.js";
import { ProblemBox } from "./problem.js";
import { Text } from "./text.js";

let numbers = 0;

// A modal dialog whose title is text, shown as long as it is rendered. Escape asks for `onClose`.
// The focus begins at the first field, or at the first button of the footer.
export function Dialog({ title, onClose, wide = false, children }) {
  const ref = useRef(null);
  const id = useRef(`dialog-${++numbers}`).current;
  useLayoutEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    dialog.querySelector("input, select, textarea, footer button")?.focus();
    return () => dialog.close();
  }, []);
  const cancelled = (event) => {
    event.preventDefault(); // it leaves when its owner no longer renders it
    onClose();
  };
  return html`<dialog ref=${ref} class=${wide ? "wide" : ""} aria-labelledby=${id} onCancel=${cancelled}>
    <header><h2 id=${id}><${Text} brief value=${title} /></h2>
      <button type="button" class="icon" aria-label="Close" onClick=${onClose}>✕</button></header>
    ${children}
  </dialog>`;
}

// Asks once. `title` names the action and the thing; `children` say what will happen; `action` is
// the button's text; `onConfirm` may be asynchronous and raise Problem, which is shown. `onStale`
// loads anew what has changed since it was shown.
export function Confirm({ title, action, danger = false, onConfirm, onClose, onStale, children }) {
  const [state, setState] = useState({});
  const confirm = async () => {
    setState({ busy: true });
    try {
      await onConfirm();
      onClose();
    } catch (problem) {
      setState({ problem });
    }
  };
  const stale = Boolean(onStale) && state.problem?.status === 412;
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <div class="prose">${children}</div>
    <${ProblemBox} problem=${state.problem} again="Reload" retry=${stale && (() => (onStale(), onClose()))} />
    <footer>
      <button type="button" onClick=${onClose}>Cancel</button>
      <button type="button" class=${danger ? "danger" : "primary"} disabled=${state.busy || stale} onClick=${confirm}>
        ${action}
      </button>
    </footer>
  <//>`;
}

const notices = new Set();
let drawNotices = () => {};

// Says briefly that something is done: notify("Poll requested").
export function notify(text) {
  const notice = { text };
  notices.add(notice);
  drawNotices();
  setTimeout(() => {
    notices.delete(notice);
    drawNotices();
  }, 5_000);
}

export function Notices() {
  const [, draw] = useState(0);
  useLayoutEffect(() => {
    drawNotices = () => draw((n) => n + 1);
  }, []);
  return html`<div class="notices" role="status" aria-live="polite">
    ${[...notices].map((one) => html`<p key=${one}><${Text} brief value=${one.text} /></p>`)}
  </div>`;
}
