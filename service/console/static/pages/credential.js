// The credential of an integration: its name, its base URL, another API key.
import { html, useState } from "../vendor/standalone.module.js";
import { path, send } from "../api.js";
import { isAdmin } from "../session.js";
import { Dialog, notify } from "../ui/dialog.js";
import { Field, Form, useForm } from "../ui/form.js";
import { useLoad } from "../ui/load.js";
import { Text } from "../ui/text.js";

export function Credential({ id }) {
  const [open, setOpen] = useState(false);
  const shown = useLoad((signal) => send("GET", path`/v1/credentials/${id}`, { signal }), [id]);
  if (!shown.data) return html`<code>${id}</code>`;
  const { data: one, etag } = shown.data;
  return html`<${Text} value=${one.name} /> <div class="muted"><${Text} value=${one.base_url} /></div>
    ${isAdmin() && html`<button class="small" onClick=${() => setOpen(true)}>Edit the credential</button>`}
    ${open && html`<${Edit} one=${one} etag=${etag} reload=${shown.reload} onClose=${() => setOpen(false)} />`}`;
}

function Edit({ one, etag, reload, onClose }) {
  const form = useForm({ name: one.name, base_url: one.base_url, api_key: "" });
  const save = async (values) => {
    const changed = Object.entries(values).filter(([name, value]) => value !== (one[name] ?? ""));
    await send("PATCH", path`/v1/credentials/${one.id}`, { body: Object.fromEntries(changed), etag });
    notify(`${values.name} is saved.`);
    reload();
    onClose();
  };
  return html`<${Dialog} title="Edit the credential ${one.name}" onClose=${onClose}>
    <p class="muted">All integrations that use this credential follow.</p>
    <${Form} form=${form} onSubmit=${save} action="Save" onCancel=${onClose}>
      <${Field} form=${form} name="name" label="Name" />
      <${Field} form=${form} name="base_url" label="Base URL" type="url" />
      <${Field} form=${form} name="api_key" label="New API key" type="password" autocomplete="off" hint="Empty: the current value stays." />
    <//>
  <//>`;
}
