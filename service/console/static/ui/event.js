// What people call an event: its type as a mark, and the title of its course.
import { html } from "../vendor/standalone.module.js";
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

export const EventName = ({ event: { data } }) => html`<${Text} brief
  value=${courseTitle(data.course) ?? data.course_id ?? data.name ?? data.integration_id ?? data.subscription_id} />`;
