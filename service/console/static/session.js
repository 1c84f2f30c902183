// Holds the token: in the page's memory and, if the person asks for it, in sessionStorage.
// The page loads this module before all others, so that a token in the address is there only
// until the module runs.

const KEY = "coursewire-token";
const THEME = "coursewire-theme";
const listeners = new Set();

export const session = {
  token: sessionStorage.getItem(KEY),
  me: null, // what /v1/me says of the token; null until it has been asked
  notice: null, // why the person has to sign in, if there is a reason
};

function takeTokenFromAddress() {
  if (!location.hash.startsWith("#token=")) return;
  const token = location.hash.slice("#token=".length);
  history.replaceState(history.state, "", location.pathname + location.search);
  sessionStorage.removeItem(KEY);
  change({ token, me: null, notice: null });
}

export function change(changes) {
  Object.assign(session, changes);
  for (const listener of listeners) listener();
}

export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function isKept() {
  return sessionStorage.getItem(KEY) !== null;
}

export function keep(wanted) {
  if (wanted) sessionStorage.setItem(KEY, session.token);
  else sessionStorage.removeItem(KEY);
}

export function signOut(notice = null) {
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(THEME);
  change({ token: null, me: null, notice });
}

export const isAdmin = () => session.me?.scope === "admin";
export const isSubscriber = () => session.me?.scope === "subscriber";

// Light, dark, or as the system wishes.
export function theme() {
  return localStorage.getItem(THEME) ?? "system";
}

export function setTheme(name) {
  if (name === "system") localStorage.removeItem(THEME);
  else localStorage.setItem(THEME, name);
  applyTheme(name);
  change({});
}

function applyTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

// The answer of the API and its text.
export async function request(address, token, options) {
  const headers = { accept: "application/json", ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(address, {
    ...options, headers, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer",
  });
  return { answer, text: await answer.text() };
}

applyTheme(theme());
takeTokenFromAddress();

// The first answers, requested while the page still loads its other modules.
export const early = { token: session.token };
const ask = (path) => (early[path] = request(new URL("../../.." + path, import.meta.url), early.token, {}));
if (early.token)
  early.answered = ask("/v1/me").then(({ text }) => {
    if (/\/console\/?$/.test(location.pathname) && /"scope":"(admin|read)"/.test(text)) return ask("/v1/status");
  }).catch(() => {});
addEventListener("hashchange", takeTokenFromAddress);
