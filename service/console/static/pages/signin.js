// Signs in with a token of the API.
import { html, useState } from "../vendor/standalone.module.js";
import { Problem } from "../api.js";
import { keep, session } from "../session.js";
import { Field, Form, useForm } from "../ui/form.js";

export function SignIn({ enter }) {
  const form = useForm({ token: "", keep: false });
  const [notice, setNotice] = useState(session.notice);
  document.title = "Sign in · Coursewire";
  const submit = async (values) => {
    setNotice(null);
    const token = values.token.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
    if (!token) throw empty();
    try {
      await enter(token);
    } catch (problem) {
      throw problem.status === 401 ? wrong(problem) : problem;
    }
    if (session.me && values.keep) keep(true);
    setNotice(session.notice);
  };
  return html`<main class="signin">
    <div class="card">
      <h1><span class="logo" aria-hidden="true"></span>Coursewire</h1>
      <p class="muted">Sign in with the admin token or the token of an API key.</p>
      ${notice && html`<p class="notice" role="alert">${notice}</p>`}
      <${Form} form=${form} onSubmit=${submit} action="Sign in">
        <${Field} form=${form} name="token" label="Token" type="password" autocomplete="off"
          autofocus spellcheck=${false}
          hint="coursewire up keeps the admin token in the file admin-token of its data directory." />
        <${Field} form=${form} name="keep" label="Stay signed in until this tab is closed" type="checkbox" />
      <//>
    </div>
  </main>`;
}

const refused = (status, message, remedy, requestId) =>
  new Problem(status, { title: "Not signed in", detail: "", errors: [{ field: "token", message, remedy }] }, requestId);

const empty = () => refused(422, "The token is missing", "Paste the token");
const wrong = (problem) =>
  refused(401, "This token is not valid", "Check that you copied the whole token, and that its API key has not expired or been revoked", problem.requestId);
