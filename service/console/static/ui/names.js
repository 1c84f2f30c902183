// Names of what data mentions by its id, each requested once.
import { html } from "../vendor/standalone.module.js";
import { get, path } from "../api.js";
import { isSubscriber } from "../session.js";
import { useLoad } from "./load.js";
import { Text } from "./text.js";

export const nameOf = (one) => one.name ?? (one.description || one.url);

const requests = new Map();

const find = async (what, id) => {
  if (what === "subscriptions" || !isSubscriber()) return get(path`/v1/${what}/${id}`);
  return (await get("/v1/me/integrations", { limit: 500 })).items.find((one) => one.id === id);
};

// The name of an integration or subscription; its id if it is gone. what: "integrations" or "subscriptions".
export function Name({ what, id }) {
  const { data } = useLoad(() => {
    if (!requests.has(id)) requests.set(id, find(what, id).then(nameOf).catch(() => void requests.delete(id)));
    return requests.get(id);
  }, [id]);
  return html`<${Text} brief value=${data ?? id} mono=${!data} />`;
}
