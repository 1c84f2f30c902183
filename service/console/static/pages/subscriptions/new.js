// Creates a subscription and shows its secret, once, within receivers that are ready to start.
import { html, useState } from "../../vendor/standalone.module.js";
import { send } from "../../api.js";
import { url } from "../../router.js";
import { Form, useForm } from "../../ui/form.js";
import { nameOf } from "../../ui/names.js";
import { Card, Page } from "../../ui/page.js";
import { Code, Text } from "../../ui/text.js";
import { TestButton } from "./actions.js";
import { bodyOf, initialValues, SubscriptionFields } from "./form.js";
import { Receivers } from "./receivers.js";

export function NewSubscription() {
  const form = useForm(initialValues());
  const [made, setMade] = useState(null);
  const create = async (values) => {
    const { data } = await send("POST", "/v1/subscriptions", { body: bodyOf(values, { creating: true }) });
    setMade(data);
    scrollTo(0, 0);
  };
  const crumbs = [[url("subscriptions"), "Subscriptions"]];
  if (made) return html`<${Page} title="Receive the events" crumbs=${crumbs}><${Made} one=${made} /><//>`;
  return html`<${Page} title="Create a subscription" crumbs=${crumbs}>
    <${Card}><${Form} form=${form} onSubmit=${create} action="Create"><${SubscriptionFields} form=${form} /><//><//>
  <//>`;
}

function Made({ one }) {
  return html`
    <p class="notice good" role="status"><span>The subscription <strong><${Text} value=${nameOf(one)} /></strong> is created.</span></p>
    <${Card} title=${one.secret ? "1. Copy the secret" : "1. Copy the public key"}>
      <div class="stack">
        <p>${one.secret ? "This secret signs every push. Store it in the receiver's configuration and keep it secret."
          : "The receiver verifies signatures with this key. The private key stays in Coursewire."}</p>
        <${Code} text=${one.secret ?? one.public_key} label=${one.secret ? "Secret" : "Public key"} />
      </div>
    <//>
    <${Card} title="2. Start a receiver"><${Receivers} one=${one} secret=${one.secret} /><//>
    <${Card} title="3. See the first event">
      <div class="stack">
        <p>Send a signed test event now, or watch events and deliveries as they happen.</p>
        <div class="row"><${TestButton} one=${one} primary />
          <a class="button" href=${url("subscriptions", one.id)}>Its deliveries</a>
          <a class="button" href=${url("events")}>Watch events</a></div>
      </div>
    <//>`;
}
