"""``/`` and ``/docs``: plain pages that need nothing but this process, no script and no other host."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from shared.version import VERSION

router = APIRouter(include_in_schema=False)

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2430;background:#fff}
h2{margin-top:3rem;border-bottom:1px solid #ccd}h3{margin-top:2rem}code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:#f4f5f8;padding:.8rem;overflow:auto;border-radius:4px}table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:.15rem 1rem .15rem 0}.method{color:#0a6;font-weight:600}a{color:#14c}
@media(prefers-color-scheme:dark){body{color:#dde;background:#14171d}pre{background:#20242c}a{color:#8af}h2{border-color:#445}}
"""
_LINKS = (
    ("/docs", "The REST interface, to read"),
    ("/webapi/v0/", "The webapi of mox"),
    ("/openapi.json", "The REST interface, for tools (OpenAPI 3.1)"),
    ("/livez", "Whether this process lives"),
    ("/readyz", "Whether it is ready"),
    ("/metrics", "Its metrics (Prometheus)"),
)


@router.get("/")
async def root() -> HTMLResponse:
    """Return one page with links."""
    items = "".join(f'<li><a href="{path}">{path}</a> {escape(text)}</li>' for path, text in _LINKS)
    return _page("Posthouse", f"<h1>Posthouse</h1><p>Version {escape(VERSION)}</p><ul>{items}</ul>")


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Return the OpenAPI document as a page to read."""
    return _page("Posthouse: REST", "".join(_document(request.app.openapi())))


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>',
        headers=_HEADERS,
    )


def _document(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_paragraphs(info['description'])}"
    operations = [
        (method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    for tag in document["tags"]:
        yield f'<h2 id="{escape(tag["name"])}">{escape(tag["name"].capitalize())}</h2>{_paragraphs(tag["description"])}'
        for method, path, operation in operations:
            if tag["name"] in operation.get("tags", ()):
                yield from _operation(document, method, path, operation)
    yield '<h2 id="webhooks">Webhooks</h2>'
    for item in document["webhooks"].values():
        yield from _operation(document, "post", "your URL", item["post"])


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    name = escape(operation["operationId"])
    yield f'<h3 id="{name}"><a href="#{name}">{escape(operation["summary"])}</a></h3>'
    yield f'<p><span class="method">{method.upper()}</span> <code>{escape(path)}</code></p>'
    yield _paragraphs(operation.get("description", ""))
    rows = [
        (parameter["name"], f"{parameter['in']}: {parameter.get('description', '')}")
        for parameter in operation.get("parameters", ())
    ]
    yield _table(rows)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield _example(document, "Send", content["schema"])
    for status, response in operation["responses"].items():
        for media_type, content in response.get("content", {}).items():
            if media_type == "application/json":
                yield _example(document, f"Answer {status}", content.get("schema", {}))
    errors = [
        (status, response["description"]) for status, response in operation["responses"].items() if status[0] in "45"
    ]
    yield _table(errors)


def _example(document: Mapping[str, Any], title: str, schema: Mapping[str, Any]) -> str:
    references = [schema, *schema.get("anyOf", ())]
    for reference in references:
        name = str(reference.get("$ref", "")).rpartition("/")[2]
        for value in document["components"]["schemas"].get(name, {}).get("examples", ())[:1]:
            text = json.dumps(value, indent=2, ensure_ascii=False)
            return f"<p>{escape(title)} (<code>{escape(name)}</code>)</p><pre>{escape(text)}</pre>"
    return ""


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td><code>{escape(a)}</code></td><td>{_marked(b)}</td></tr>" for a, b in rows)
    return f"<table>{cells}</table>" if cells else ""


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_marked(part)}</p>" for part in text.split("\n\n") if part.strip())


def _marked(text: str) -> str:
    """Escape, and show what stands between backticks as code."""
    parts = escape(text).replace("**", "").split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
