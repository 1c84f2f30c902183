// npm install standardwebhooks
// Save as app/webhooks/coursewire/route.ts, and set WEBHOOK_SECRET in the environment.
import { Webhook } from "standardwebhooks";

type CourseEvent = { type: string; data: { course_id?: string } };

export async function POST(request: Request): Promise<Response> {
  const webhook = new Webhook(process.env.WEBHOOK_SECRET ?? "");
  let event: CourseEvent;
  try {
    const headers = Object.fromEntries(request.headers);
    event = webhook.verify(await request.text(), headers) as CourseEvent;
  } catch {
    return new Response("invalid signature", { status: 400 }); // forged or too old
  }
  await handle(event);
  return new Response(null, { status: 204 });
}

async function handle(event: CourseEvent): Promise<void> {
  console.log(event.type, event.data.course_id); // store the event here
}
