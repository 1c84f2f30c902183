// Addresses of the console. Every page has its own, below wherever the console is served.
import { useLayoutEffect, useState } from "./vendor/standalone.module.js";

export const BASE = new URL("../../", import.meta.url).pathname; // such as /prefix/console/

// The address of a page: url("integrations", id, { tab: "polls" }).
export function url(...parts) {
  const query = typeof parts.at(-1) === "object" ? parts.pop() : {};
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) {
      if (one !== undefined && one !== null && one !== "") search.append(name, one);
    }
  }
  const path = BASE + parts.map(encodeURIComponent).join("/");
  return search.size ? `${path}?${search}` : path;
}

// `paged` marks a step from one page of a list to the next, which "Previous" takes back.
export function navigate(to, { replace = false, paged = false } = {}) {
  history[replace ? "replaceState" : "pushState"]({ paged }, "", to);
  dispatchEvent(new PopStateEvent("popstate", { state: history.state }));
}

export function currentPath() {
  return location.pathname.slice(BASE.length).split("/").filter(Boolean).map(decodeURIComponent);
}

// Draws the component again whenever the address changes.
export function useAddress() {
  const [, draw] = useState(0);
  useLayoutEffect(() => {
    const changed = () => draw((n) => n + 1);
    addEventListener("popstate", changed);
    return () => removeEventListener("popstate", changed);
  }, []);
}

// The parameters of the address and a function that changes some of them:
// const [query, setQuery] = useQuery(); query.get("state"); setQuery({ state: "error" }).
export function useQuery() {
  useAddress();
  const query = new URLSearchParams(location.search);
  const setQuery = (changes, options) => {
    const next = new URLSearchParams(location.search);
    next.delete("after"); // a cursor leads on in the list as it was
    for (const [name, value] of Object.entries(changes)) {
      next.delete(name);
      if (value !== null && value !== undefined && value !== "") next.set(name, value);
    }
    navigate(next.size ? `${location.pathname}?${next}` : location.pathname, options);
  };
  return [query, setQuery];
}

// Links within the console change the address without loading the page anew.
addEventListener("click", (event) => {
  const link = event.composedPath().find((one) => one instanceof HTMLAnchorElement);
  const modified = event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (!link || modified || event.defaultPrevented || link.target || link.hasAttribute("download"))
    return;
  const inside = link.pathname.startsWith(BASE) || `${link.pathname}/` === BASE;
  if (link.origin !== location.origin || !inside || link.hash) return;
  event.preventDefault();
  navigate(link.href, { paged: "paged" in link.dataset });
});
