// What people call an event: its type as a mark, and the title of its course.
import { html } from "../vendor/standalone.module.js";
import { get, path } from "../api.js";
import { useLoad } from "./load.js";
import { Name } from "./names.js";
import { Text } from "./text.js";

const TONES = { "course.created": "ok", "course.updated": "busy", "course.deleted": "off" };
const GOOD = /recovered|completed/;

export const EventType = ({ type }) => html`<span
  class="state ${TONES[type] ?? (GOOD.test(type) ? "ok" : "warn")}">${type}</span>`;

// The title of a course: that of its newest revision that has one.
export function courseTitle(course) {
  const revisions = course?.revisions ?? [];
  const newest = [...revisions].sort((a, b) =>
    String(b.remote_created_at ?? "").localeCompare(String(a.remote_created_at ?? "")));
  return newest.find((one) => one.title)?.title ?? course?.title ?? null;
}

export function EventName({ event: { data } }) {
  const text = courseTitle(data.course) ?? data.course_id;
  if (text) return html`<${Text} brief value=${text} />`;
  return data.integration_id
    ? html`<${Name} what="integrations" id=${data.integration_id} />`
    : html`<${Name} what="subscriptions" id=${data.subscription_id} />`;
}

// The title that a course had in an event; `fallback` if the event has no course or is no longer kept.
export function EventTitle({ id, fallback }) {
  const { data } = useLoad((signal) => id && get(path`/v1/events/${id}`, {}, signal), [id]);
  return html`<${Text} brief value=${courseTitle(data?.data.course)} fallback=${fallback} />`;
}
