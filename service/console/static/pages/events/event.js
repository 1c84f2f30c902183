// Shows one event: what changed, who received it, and its body.
import { html, useState } from "../../vendor/standalone.module.js";
import { get, path, send } from "../../api.js";
import { url } from "../../router.js";
import { isSubscriber } from "../../session.js";
import { Dialog, notify } from "../../ui/dialog.js";
import { courseTitle, EventName, EventType } from "../../ui/event.js";
import { Field, Form, useForm } from "../../ui/form.js";
import { useLoad } from "../../ui/load.js";
import { Name, nameOf } from "../../ui/names.js";
import { Card, Facts, Page } from "../../ui/page.js";
import { Loaded } from "../../ui/problem.js";
import { Chips, Copy, Empty, Id, Json, Labels, sentence, Text, Time } from "../../ui/text.js";
import { EventDeliveries } from "../subscriptions/deliveries.js";
import { maySubscribe } from "../subscriptions/list.js";

export function Event({ id }) {
  const shown = useLoad((signal) => get(path`/v1/events/${id}`, {}, signal), [id]);
  const [sending, setSending] = useState(false);
  const crumbs = [[url("events"), "Events"]];
  if (!shown.data) return html`<${Page} title="Event" crumbs=${crumbs}>
    ${shown.problem?.status === 404
      ? html`<${Empty} title="This event is not kept." action=${html`<a class="button" href=${url("events")}>All events</a>`}>
          Its retention is over, or the token may not see it.<//>`
      : html`<${Loaded} of=${shown} />`}<//>`;
  const event = shown.data;
  const { data } = event;
  const name = courseTitle(data.course) ?? data.course_id ?? event.type;
  return html`<${Page} title=${name} crumbs=${crumbs} doc="event-types" heading=${html`<${EventName} event=${event} /> <${EventType} type=${event.type} />`}
    actions=${html`${data.course_id && html`<a class="button" href=${url("events", { integration_id: data.integration_id, course_id: data.course_id })}>History of the course</a>`}
      ${maySubscribe() && html`<button onClick=${() => setSending(true)}>Redeliver</button>`}`}>
    <div class="grid">
      <div class="stack">
        <${Card} title="What happened"><${Facts} items=${facts(event)} /><//>
        <${Card} title="Who received it"><${EventDeliveries} eventId=${id} /><//>
      </div>
      <${Card} title="Body" actions=${html`<${Copy} text=${JSON.stringify(event, null, 2)} />`}><${Json} value=${event} /><//>
    </div>
    ${sending && html`<${Redeliver} id=${id} onClose=${() => setSending(false)} />`}
  <//>`;
}

function facts({ timestamp, data }) {
  const integration = data.integration_id;
  const link = (href, shown) => (isSubscriber() ? shown : html`<a href=${href}>${shown}</a>`);
  const text = (value) => value && html`<${Text} value=${value} />`;
  return [
    ["Changed", data.changed?.length ? html`<${Chips} items=${data.changed} />` : null],
    ["When", html`<${Time} at=${timestamp} />`],
    ["Integration", integration && link(url("integrations", integration), html`<${Name} what="integrations" id=${integration} />`)],
    ["Course", data.course_id && link(url("integrations", integration, "courses", { id: data.course_id }), html`<${Text} value=${data.course_id} mono />`)],
    ["Subscription", data.subscription_id && html`<a href=${url("subscriptions", data.subscription_id)}><${Name} what="subscriptions" id=${data.subscription_id} /></a>`],
    ["Id in the learning system", data.remote_id && html`<${Text} value=${data.remote_id} mono />`],
    ["Labels", data.labels && Object.keys(data.labels).length > 0 ? html`<${Labels} labels=${data.labels} />` : null],
    ["Found by", text(data.detected_by && `${data.detected_by} poll`)],
    ["Evidence", text(data.evidence)],
    ["Reason", text(sentence(data.reason ?? data.message))],
    ["Course left out because of", text(data.course_omitted)],
    ["Sequence", text(data.sequence)],
    ["Sequence before", text(data.previous_sequence)],
    ["Id", html`<${Id} id=${data.event_id} />`],
  ];
}

function Redeliver({ id, onClose }) {
  const form = useForm({ subscription_id: "" });
  const list = useLoad((signal) => get("/v1/subscriptions", { limit: 500 }, signal), []);
  const again = async (values) => {
    await send("POST", path`/v1/events/${id}/redeliver`, { body: values });
    notify("The event is sent again.");
    onClose();
  };
  return html`<${Dialog} title="Redeliver this event" onClose=${onClose}>
    <p>The subscription receives the event again, whether or not it matches the filter.</p>
    <${Form} form=${form} onSubmit=${again} action="Redeliver" onCancel=${onClose}>
      <${Field} form=${form} name="subscription_id" label="Subscription" type="select"
        options=${[["", "Choose one"], ...(list.data?.items ?? []).map((one) => [one.id, nameOf(one)])]} />
    <//>
  <//>`;
}
