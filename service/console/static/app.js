// The console: its frame, and which page stands at which address.
import { html, render, useEffect, useErrorBoundary, useLayoutEffect, useRef, useState } from "./vendor/standalone.module.js";
import { whoHas } from "./api.js";
import { BASE, currentPath, navigate, url, useAddress } from "./router.js";
import { change, early, isKept, isSubscriber, keep, onChange, session, setTheme, signOut, theme } from "./session.js";
import { Notices } from "./ui/dialog.js";
import { Doc, Page } from "./ui/page.js";
import { Loading, ProblemBox } from "./ui/problem.js";
import { Empty, Text } from "./ui/text.js";
import { Overview } from "./pages/overview.js";
import { SignIn } from "./pages/signin.js";

// A page that is loaded before it is shown: the first view, the overview, needs few files.
function page(file, name) {
  let component, loading;
  function Loaded(properties) {
    const [failure, fail] = useState(null);
    const missing = !component; // by the time the effect runs, it may be there
    useEffect(() => {
      if (missing) Loaded.load().then(() => change({}), fail);
    }, []);
    if (failure) throw failure;
    return component
      ? html`<${component} ...${properties} />`
      : html`<div class="loading page-loading" role="status"><span class="visually-hidden">Loading the page</span></div>`;
  }
  Loaded.load = () =>
    (loading ??= import(`./pages/${file}.js`).then(
      (module) => (component = module[name]),
      (error) => {
        loading = null;
        throw error;
      },
    ));
  return Loaded;
}

// [address, page, whether subscribers have it]. ":name" fills in a property of the page.
const PAGES = [
  ["", Overview, false],
  ["integrations", page("integrations", "Integrations"), true],
  ["integrations/new", page("new_integration", "NewIntegration"), false],
  ["integrations/:id", page("integration", "Integration"), false],
  ["integrations/:id/:tab", page("integration", "Integration"), false],
  ["subscriptions", page("subscriptions/list", "Subscriptions"), true],
  ["subscriptions/new", page("subscriptions/new", "NewSubscription"), true],
  ["subscriptions/:id", page("subscriptions/detail", "Subscription"), true],
  ["subscriptions/:id/:tab", page("subscriptions/detail", "Subscription"), true],
  ["deliveries", page("subscriptions/deliveries", "Deliveries"), true],
  ["events", page("events/list", "Events"), true],
  ["events/:id", page("events/event", "Event"), true],
  ["access", page("access", "Access"), false],
  ["access/:tab", page("access", "Access"), false],
  ["system", page("system", "System"), false],
];

const MENU = [
  ["", "Overview", "M3 11.5 12 4l9 7.5M6 9.5V20h12V9.5"],
  ["integrations", "Integrations", "M9 3v5m6-5v5M6 8h12v4a6 6 0 0 1-12 0zm6 10v3"],
  ["subscriptions", "Subscriptions", "M4 12h11m-4-5 5 5-5 5M20 4v16"],
  ["deliveries", "Deliveries", "M3 6h18v12H3zm0 1 9 7 9-7"],
  ["events", "Events", "M3 12h4l3-8 4 16 3-8h4"],
  ["access", "Access", "M14 10a4 4 0 1 0-4 4l1-1 2 2h2v2h2v3h3v-3l-6-6z"],
  ["system", "System", "M4 5h16v5H4zm0 9h16v5H4zM8 7.5h.01M8 16.500h.01"],
];

function matched(pattern, path) {
  const parts = pattern.split("/").filter(Boolean);
  if (parts.length !== path.length) return null;
  const found = {};
  for (const [at, part] of parts.entries()) {
    if (part.startsWith(":")) found[part.slice(1)] = path[at];
    else if (part !== path[at]) return null;
  }
  return found;
}

function found(path) {
  for (const [pattern, page, forSubscribers] of PAGES) {
    const properties = matched(pattern, path);
    if (properties && (forSubscribers || !isSubscriber())) return [page, properties];
  }
  return [NotFound, {}];
}

const NotFound = () => html`<${Page} title="Not found">
  <${Empty} title="Page not found"
    action=${html`<a class="button" href=${url()}>Go to the start</a>`}>
    The address may be mistyped, or the token may not see this page.
  <//>
<//>`;

function Menu({ path }) {
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [location.pathname]);
  const shown = MENU.filter(([part]) =>
    PAGES.some(([pattern, , forSubscribers]) => pattern === part && (forSubscribers || !isSubscriber())),
  );
  return html`<header class="menu ${open ? "open" : ""}">
    <div class="brand">
      <a href=${url()}><span class="logo" aria-hidden="true"></span>Coursewire</a>
      <button class="toggle" aria-expanded=${open} aria-controls="menu" onClick=${() => setOpen(!open)}>Menu</button>
    </div>
    <div class="drawer" id="menu">
      <nav aria-label="Pages">
        ${shown.map(
          ([part, name, icon]) => html`<a href=${url(...[part].filter(Boolean))} aria-current=${(path[0] ?? "") === part ? "page" : undefined}>
            <svg viewBox="0 0 24 24" aria-hidden="true"><path d=${icon} /></svg>${name}</a>`,
        )}
      </nav>
      <${Account} />
    </div>
  </header>`;
}

const SCOPES = { admin: "administrator", read: "reader", subscriber: "subscriber" };

function Account() {
  return html`<div class="account">
    <p>Signed in as ${SCOPES[session.me.scope]}<br /><strong><${Text} brief value=${session.me.name} /></strong></p>
    <label><input type="checkbox" checked=${isKept()} onChange=${(event) => keep(event.target.checked)} />
      Stay signed in in this tab</label>
    <label>Colours <select value=${theme()} onChange=${(event) => setTheme(event.target.value)}>
      ${["system", "light", "dark"].map((name) => html`<option value=${name} selected=${name === theme()}>${name}</option>`)}
    </select></label>
    <p><${Doc} page="index" text="contents" /><br />
      <a href=${BASE + "../schema"}>API reference</a></p>
    <button onClick=${() => signOut()}>Sign out</button>
  </div>`;
}

// Finds what the token opens; a wrong one leads to the sign-in page.
function Entering() {
  const [problem, setProblem] = useState(null);
  const enter = async () => {
    setProblem(null);
    try {
      await enterWith(session.token);
    } catch (error) {
      if (error.status === 401) signOut("The token is not valid. It may have expired or been revoked.");
      else setProblem(error);
    }
  };
  useLayoutEffect(() => {
    enter();
  }, [session.token]);
  return html`<main class="entering">
    ${problem ? html`<${ProblemBox} problem=${problem} retry=${enter} />` : html`<${Loading} label="Signing in" />`}
  </main>`;
}

export async function enterWith(token) {
  const me = await whoHas(token);
  if (me.scope === "metrics") {
    signOut("This token authorizes only /metrics. The console needs a token of the scope admin, read or subscriber.");
    return;
  }
  if (me.scope === "subscriber" && !currentPath().length) navigate(url("subscriptions"), { replace: true });
  change({ token, me, notice: null });
}

// A page that fails says so, and leaves the menu as it is.
function Shown({ page, properties }) {
  const [error, forget] = useErrorBoundary();
  return error
    ? html`<${Page} title="This page failed"><${ProblemBox} problem=${error} retry=${forget} /><//>`
    : html`<${page} ...${properties} />`;
}

function App() {
  const [, draw] = useState(0);
  const main = useRef(null);
  const shown = useRef(null);
  useAddress();
  useLayoutEffect(() => onChange(() => draw((n) => n + 1)), []);
  useEffect(() => {
    if (shown.current === location.pathname || main.current?.querySelector(".page-loading")) return;
    if (shown.current !== null) {
      main.current?.querySelector("h1")?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    shown.current = location.pathname;
  });
  if (!session.token) return html`<${SignIn} enter=${enterWith} />`;
  if (!session.me) return html`<${Entering} />`;
  const path = currentPath();
  const [page, properties] = found(path);
  return html`<a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      main.current.focus();
    }}>Skip to the content</a>
    <${Menu} path=${path} />
    <main id="main" tabindex="-1" ref=${main}>
      <${Shown} key=${location.pathname} page=${page} properties=${properties} />
    </main>
    <${Notices} />`;
}

// Browsers read the address of the icon again whenever the address of the page changes.
const icon = document.querySelector('link[rel="icon"]');
icon.href = icon.href;
if (session.token) found(currentPath())[0].load?.().catch(() => {});
// What is there in a moment is awaited: a frame without it costs more time.
if (early.token) await Promise.race([early.answered, new Promise((go) => setTimeout(go, 300))]);
render(html`<${App} />`, document.getElementById("app"));
addEventListener("load", () => setTimeout(() => PAGES.forEach(([, { load }]) => load?.().catch(() => {})), 1000));
