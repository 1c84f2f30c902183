// npm install express standardwebhooks
// WEBHOOK_SECRET=whsec_... node express_receiver.mjs
import express from "express";
import { Webhook } from "standardwebhooks";

const app = express();
const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const type = ["application/json", "application/cloudevents+json"];

app.post("/", express.raw({ type, limit: "300kb" }), async (request, response) => {
  let event;
  try {
    event = webhook.verify(request.body, request.headers);
  } catch {
    return response.status(400).send("invalid signature"); // forged or too old
  }
  await handle(event);
  response.sendStatus(204);
});

async function handle(event) {
  console.log(event.type, event.data.course_id); // store the event here
}

app.listen(Number(process.env.PORT ?? 9000), "127.0.0.1");
