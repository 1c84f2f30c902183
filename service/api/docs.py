"""Shows the OpenAPI document as one page of plain HTML, without scripts or foreign assets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any

import msgspec
from litestar import Request, Router
from litestar.datastructures import ResponseHeader
from litestar.openapi.plugins import OpenAPIRenderPlugin

from service.api.auth import FOR_SUBSCRIBERS, PROTECTED

_METHODS = ("get", "post", "put", "patch", "delete")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --back: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { font: .9em ui-monospace, monospace }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0 }
summary { cursor: pointer; padding: .5rem .75rem }
summary b { display: inline-block; min-width: 5rem; margin-right: .5rem }
summary span { color: var(--soft); margin-left: .75rem }
details > div { padding: 0 .75rem .75rem }
table { border-collapse: collapse; width: 100% }
td, th { border-top: 1px solid var(--line); padding: .3rem .6rem; overflow-wrap: anywhere }
td, th { text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: normal }
:target { background: var(--back) }
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


class DocsPlugin(OpenAPIRenderPlugin):
    """Renders the page."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page of `openapi_schema`."""
        info = openapi_schema["info"]
        path = escape(self.get_openapi_json_route(request))
        return "".join(
            (
                "<!doctype html><html lang=en><meta charset=utf-8>",
                "<meta name=viewport content='width=device-width'>",
                f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>",
                f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
                f"<p>{_prose(info['description'])}",
                f"<p>The same for machines: <a href={path}><code>{path}</code></a>. ",
                "Send <code>Authorization: Bearer TOKEN</code> with every request.",
                *_operations(openapi_schema),
                "<h2>Objects</h2>",
                *_objects(openapi_schema["components"]["schemas"]),
            )
        ).encode()


def _operations(document: dict[str, Any]) -> Iterable[str]:
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}"
        for path, item in sorted({**document["paths"], **document["webhooks"]}.items()):
            for method in _METHODS:
                operation = item.get(method)
                if operation is not None and tag["name"] in operation.get("tags", ()):
                    yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterable[str]:
    yield f"<details><summary><b>{method.upper()}</b><code>{escape(path)}</code>"
    yield f"<span>{escape(operation['summary'])}</span></summary><div>"
    yield f"<p>{_prose(operation.get('description', ''))}"
    parameters = operation.get("parameters", ())
    if parameters:
        yield "<table><tr><th>parameter<th>type<th>meaning"
        for one in parameters:
            yield _row(one["name"], one["schema"], one.get("description", ""), one.get("required"))
        yield "</table>"
    bodies = operation.get("requestBody", {}).get("content", {})
    for media_type, content in bodies.items():
        schema = content["schema"]
        if len(bodies) > 1:
            yield f"<p>As <code>{escape(media_type)}</code>:"
        yield "<table><tr><th>field<th>type<th>meaning"
        yield from _properties(schema)
        yield "</table>"
    yield "<table><tr><th>status<th>type<th>meaning"
    for status, response in sorted(operation["responses"].items()):
        schemas = [content["schema"] for content in response.get("content", {}).values()]
        kind = _kind(schemas[0]) if schemas and schemas[0] else ""
        yield f"<tr><td>{escape(status)}<td>{kind}<td>{_prose(response['description'])}"
    yield "</table></div></details>"


def _objects(schemas: dict[str, Any]) -> Iterable[str]:
    for name, schema in sorted(schemas.items()):
        yield f"<h3 id='{escape(name)}'>{escape(schema.get('title', name))}</h3>"
        yield f"<p>{_prose(schema.get('description', ''))}"
        yield "<table><tr><th>field<th>type<th>meaning"
        yield from _properties(schema)
        yield "</table>"


def _properties(schema: dict[str, Any], above: str = "") -> Iterable[str]:
    required = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        yield _row(above + name, one, one.get("description", ""), name in required)
        yield from _properties(one, f"{above}{name}.")


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
