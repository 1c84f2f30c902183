"""Shows the OpenAPI document as one page of plain HTML, without scripts or foreign assets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

import msgspec
from litestar import Request, Router
from litestar.datastructures import ResponseHeader
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin

from service.api.access.authentication import FOR_SUBSCRIBERS, PROTECTED
from service.api.http.problems import CATALOGUE, MEDIA_TYPE, TYPE_PREFIX
from service.api.schema.document import METHODS, Contract, Json

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5d6b7c; --line: #dfe4ea; --back: #f5f7f9;
  --page: #fff; --link: #0b62a8; --get: #17709f; --post: #1b7f4d; --patch: #96620a;
  --delete: #b02f2f; --event: #6b44a8 }
@media (prefers-color-scheme: dark) { :root { --ink: #dde4ec; --soft: #94a3b5; --line: #303a46;
  --back: #1a212a; --page: #11161c; --link: #6cb4ee; --get: #5cb3dd; --post: #5cc48f;
  --patch: #dfa951; --delete: #ec8080; --event: #b697ea } }
* { box-sizing: border-box }
html { scroll-padding-top: 4rem }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Consolas, "Liberation Mono", monospace }
code { background: var(--back); border-radius: 3px; padding: .05em .3em }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0;
  padding: .7rem .9rem; overflow-x: auto }
pre code { background: none; padding: 0 }
nav { position: fixed; inset: 0 auto 0 0; width: 17rem; overflow-y: auto; padding: 1.2rem 1rem;
  border-right: 1px solid var(--line); background: var(--back); font-size: 13.5px }
nav b { display: block; font-size: 1.15rem; margin-bottom: .8rem }
nav b small { color: var(--soft); font-weight: normal; font-size: .8rem }
nav h2 { font-size: .72rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft);
  margin: 1.1rem 0 .3rem }
nav a { display: block; color: inherit; padding: .12rem 0; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis }
main { margin-left: 17rem; padding: 2rem 2.5rem 6rem; max-width: 66rem }
h1 { margin: 0 0 .3rem; font-size: 1.9rem }
main > section > h2 { margin: 3rem 0 .2rem; padding-bottom: .3rem; font-size: 1.35rem;
  border-bottom: 1px solid var(--line) }
h3 { margin: 2rem 0 .2rem; font-size: 1.05rem }
h4 { margin: 1.1rem 0 .2rem; font-size: .8rem; letter-spacing: .03em; color: var(--soft);
  text-transform: uppercase }
h4 code { text-transform: none }
details { border: 1px solid var(--line); border-radius: 7px; margin: .5rem 0 }
details[open] { box-shadow: 0 1px 6px #0001 }
summary { cursor: pointer; display: flex; gap: .8rem; align-items: baseline; padding: .5rem .8rem }
summary:hover { background: var(--back) }
summary .path { font-weight: 600; background: none; padding: 0; overflow-wrap: anywhere }
summary .says { color: var(--soft); margin-left: auto; text-align: right }
details > div { border-top: 1px solid var(--line); padding: .5rem .9rem .9rem }
.method { flex: none; width: 4.2rem; font: 600 12px/1.5 ui-monospace, monospace }
nav .method { display: inline-block; width: 3.1rem; font-size: 9.5px }
.get { color: var(--get) } .post { color: var(--post) } .patch { color: var(--patch) }
.delete { color: var(--delete) } .event { color: var(--event) }
.scopes { color: var(--soft); font-size: 13px }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 }
td, th { border-top: 1px solid var(--line); padding: .35rem .6rem .35rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere }
th { color: var(--soft); font-weight: normal; font-size: 13px; border-top: 0 }
td:first-child { width: 30% } td:nth-child(2) { width: 26%; color: var(--soft) }
td small { color: var(--delete) }
.answers td:first-child { width: 4.5rem }
details:has(:target), tr:target, h3:target { outline: 2px solid var(--link); border-radius: 4px }
@media (max-width: 60rem) { nav { position: static; width: auto; border-right: 0;
  border-bottom: 1px solid var(--line); max-height: 40vh } main { margin: 0; padding: 1.2rem }
  summary { flex-wrap: wrap } summary .says { margin-left: 0 } }
@media print { nav { display: none } main { margin: 0 } }
"""


def schema_router(*, public: bool) -> Router:
    """Where the document and its page are served; to everybody if `public`, else to
    those who may use the API."""
    return Router(
        path="/schema",
        route_handlers=[],
        include_in_schema=False,
        middleware=() if public else PROTECTED,
        opt={FOR_SUBSCRIBERS: True},
        response_headers=[ResponseHeader(name="content-security-policy", value=_POLICY)],
    )


class DocumentPlugin(JsonRenderPlugin):
    """Serves the document."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self._contract = contract

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self._contract.of(openapi_schema))


class DocsPlugin(OpenAPIRenderPlugin):
    """Renders the page."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(path="/")
        self._contract = contract

    def receive_router(self, router: Router) -> None:
        """Takes the framework's own page for unknown paths away: they are problems here too."""
        router.routes[:] = [one for one in router.routes if not one.path.endswith("{path:str}")]

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page of `openapi_schema`."""
        document = self._contract.of(openapi_schema)
        info = document["info"]
        prefix = request.app.state.settings.root_path
        base_url = f"{str(request.base_url).rstrip('/')}{prefix}"
        path = escape(prefix + self.get_openapi_json_route(request))
        title = escape(info["title"])
        return "".join(
            (
                "<!doctype html><html lang=en><meta charset=utf-8>",
                "<meta name=viewport content='width=device-width'><link rel=icon href='data:,'>",
                f"<title>{title} API</title><style>{_STYLE}</style>",
                *_navigation(document),
                f"<main><h1>{title} API</h1><p>{_prose(info['description'])}",
                f"<p>The same for machines, in OpenAPI 3.1: <a href={path}><code>{path}</code></a>",
                "<pre><code>curl -H 'Authorization: Bearer TOKEN' ",
                f"{escape(base_url)}/v1/status</code></pre>",
                *_sections(document),
                "<section id=problems><h2>Problems</h2><p>Every error is one of these, as ",
                f"<code>{MEDIA_TYPE}</code> (RFC 9457), with the type ",
                f"<code>{TYPE_PREFIX}</code> and the name.",
                *_catalogue(),
                "</section><section id=objects><h2>Objects</h2>",
                *_objects(document["components"]["schemas"]),
                "</section></main>",
            )
        ).encode()


def _by_tag(document: Json) -> Iterator[tuple[Json, list[tuple[str, str, Json]]]]:
    """Each tag with its operations: method, path and what it does."""
    items = sorted({**document["paths"], **document["webhooks"]}.items())
    for tag in document["tags"]:
        yield (
            tag,
            [
                (method if path.startswith("/") else "event", path, item[method])
                for path, item in items
                for method in METHODS
                if method in item and tag["name"] in item[method].get("tags", ())
            ],
        )


def _navigation(document: Json) -> Iterator[str]:
    info = document["info"]
    yield f"<nav><b>{escape(info['title'])} <small>{escape(info['version'])}</small></b>"
    for tag, operations in _by_tag(document):
        yield f"<h2><a href='#{_anchor(tag['name'])}'>{escape(tag['name'])}</a></h2>"
        for method, _, operation in operations:
            mark = "" if method == "event" else f"{_method(method)} "
            summary = escape(operation["summary"])
            yield f"<a href='#{_anchor(operation['operationId'])}'>{mark}{summary}</a>"
    yield "<h2>Reference</h2><a href='#problems'>Problems</a><a href='#objects'>Objects</a></nav>"


def _sections(document: Json) -> Iterator[str]:
    for tag, operations in _by_tag(document):
        yield f"<section id='{_anchor(tag['name'])}'><h2>{escape(tag['name'])}</h2>"
        yield f"<p>{_prose(tag['description'])}"
        for method, path, operation in operations:
            yield from _operation(document, method, path, operation)
        yield "</section>"


def _operation(document: Json, method: str, path: str, operation: Json) -> Iterator[str]:
    # A link to what is inside opens it, without a script.
    yield f"<details><summary>{_method(method)}"
    yield f"<code class=path>{escape(path)}</code>"
    if method != "event":
        yield f"<span class=says>{escape(operation['summary'])}</span>"
    yield f"</summary><div id='{_anchor(operation['operationId'])}'>"
    yield f"<p>{_prose(operation.get('description', ''))}"
    scopes = [f"<code>{escape(name)}</code>" for name in _scopes(operation)]
    if scopes:
        yield f"<p class=scopes>Scope: {' or '.join(scopes)}"
    parameters = operation.get("parameters", ())
    if parameters:
        yield "<h4>Parameters</h4><table><tr><th>name<th>type<th>meaning"
        for one in parameters:
            name = f"{one['name']} ({one['in']})"
            yield _row(name, one["schema"], one.get("description", ""), one.get("required"))
        yield "</table>"
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h4>Body <code>{escape(media_type)}</code></h4>"
        yield "<table><tr><th>field<th>type<th>meaning"
        yield from _properties(content["schema"])
        yield "</table>"
        for example in content.get("examples", {}).values():
            yield f"<h4>{escape(example['summary'])}</h4>{_json(example['value'])}"
    yield "<h4>Answers</h4><table class=answers><tr><th>status<th>type<th>meaning"
    for status, response in sorted(operation["responses"].items()):
        yield _answer(document, status, response)
    yield "</table></div></details>"


def _answer(document: Json, status: str, response: Json) -> str:
    if "$ref" in response:
        name = response["$ref"].rpartition("/")[2]
        problems = document["components"]["responses"][name]["content"][MEDIA_TYPE]["examples"]
        kinds = " or ".join(
            f"<a href='#problem-{escape(one)}'><code>{escape(one)}</code></a>" for one in problems
        )
        text = "; ".join(_prose(one["value"]["title"]) for one in problems.values())
        return f"<tr><td>{escape(status)}<td>{kinds}<td>{text}"
    schemas = [content["schema"] for content in response.get("content", {}).values()]
    kind = _kind(schemas[0]) if schemas and schemas[0] else ""
    return f"<tr><td>{escape(status)}<td>{kind}<td>{_prose(response['description'])}"


def _scopes(operation: Json) -> Iterator[str]:
    for requirement in operation.get("security", ()):
        yield from requirement.get("bearer", ())


def _catalogue() -> Iterator[str]:
    yield "<table><tr><th>name<th>status<th>when, and what to do"
    for problem in CATALOGUE:
        name = escape(problem.name)
        yield f"<tr id='problem-{name}'><td><code>{name}</code><td>{problem.status.value}"
        yield f"<td>{escape(problem.title)}: {_prose(problem.meaning)}"
    yield "</table>"


def _objects(schemas: Json) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield f"<h3 id='{escape(name)}'>{escape(schema.get('title', name))}</h3>"
        yield f"<p>{_prose(schema.get('description', ''))}"
        yield "<table><tr><th>field<th>type<th>meaning"
        yield from _properties(schema)
        yield "</table>"
        for example in schema.get("examples", ()):
            yield _json(example)


def _properties(schema: Json, above: str = "") -> Iterator[str]:
    required = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        yield _row(above + name, one, one.get("description", ""), name in required)
        yield from _properties(one, f"{above}{name}.")


def _method(method: str) -> str:
    return f"<span class='method {method}'>{method.upper()}</span>"


def _anchor(name: str) -> str:
    return "on-" + re.sub("[^A-Za-z0-9]", "-", name)


def _json(value: Any) -> str:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return f"<pre><code>{escape(text)}</code></pre>"


def _row(name: str, schema: dict[str, Any], meaning: str, required: object) -> str:
    mark = " <small>required</small>" if required else ""
    default = ""
    if "default" in schema:
        default = (
            f". Default: <code>{escape(msgspec.json.encode(schema['default']).decode())}</code>"
        )
    named = f"<code>{escape(name)}</code>{mark}"
    return f"<tr><td>{named}<td>{_kind(schema)}<td>{_prose(meaning)}{default}"


def _prose(text: str) -> str:
    """Text whose backticks mark code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    for combination in ("oneOf", "anyOf", "allOf"):
        if combination in schema:
            return " or ".join(_kind(one) for one in schema[combination])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    bounds = [
        f"{sign} {schema[bound]}"
        for bound, sign in (("minimum", "≥"), ("maximum", "≤"), ("maxLength", "length ≤"))
        if bound in schema
    ]
    kinds = kind if isinstance(kind, list) else [kind]
    return escape(", ".join([" or ".join(kinds), *bounds]))
