// Registers an integration, once the upstream has answered with its values.
import { html, useState } from "../vendor/standalone.module.js";
import { send } from "../api.js";
import { navigate, url, useQuery } from "../router.js";
import { notify } from "../ui/dialog.js";
import { Form, useForm } from "../ui/form.js";
import { Card, Page } from "../ui/page.js";
import { bodyOf, check, CheckResult, initialValues, IntegrationFields } from "./integration_form.js";

export function NewIntegration() {
  const [query] = useQuery();
  const sandbox = query.has("sandbox");
  const form = useForm(initialValues(null, sandbox));
  const [result, setResult] = useState(null);

  const checked = async (values) => {
    setResult(null);
    const found = await check(values);
    setResult(found);
    return found.ok;
  };
  const register = async (values) => {
    const { data } = await send("POST", "/v1/integrations", { body: bodyOf(values) });
    notify(`${data.name} is registered. Its first full poll begins now.`);
    navigate(url("integrations", data.id));
  };

  return html`<${Page} title="Register an integration" crumbs=${[[url("integrations"), "Integrations"]]}>
    <${Card}>
      ${sandbox
        ? html`<p class="notice">These are the values of the sandbox. Start it in a terminal with
            ${" "}<code>coursewire sandbox</code>, and add <code>127.0.0.1</code> to
            ${" "}<code>COURSEWIRE_ALLOWED_TARGETS</code> of the service.</p>`
        : html`<p class="muted">Do you have no learning system to try? <a href=${url("integrations", "new", { sandbox: 1 })}
            onClick=${() => form.set(initialValues(null, true))}>Fill in the values of the sandbox</a>.</p>`}
      <${Form} form=${form} action="Check and register"
        onSubmit=${async (values) => (await checked(values)) && register(values)}
        more=${html`<button type="button" disabled=${form.busy} onClick=${() => form.run(checked)}>Check only</button>
          ${result && !result.ok && html`<button type="button" class="danger" disabled=${form.busy}
            onClick=${() => form.run(register)}>Register all the same</button>`}`}>
        <${IntegrationFields} form=${form} />
        <${CheckResult} result=${result} />
      <//>
    <//>
  <//>`;
}
