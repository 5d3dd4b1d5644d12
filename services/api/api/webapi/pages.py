"""The pages of the webapi, for people: which methods there are, and each with an example and a form to call it."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from starlette.responses import HTMLResponse, Response

from api.webapi.faults import HEADERS, MOUNT

_SUPPRESSION: Final = {
    "ID": 1,
    "Created": "2026-11-20T13:00:00Z",
    "Account": "demo",
    "BaseAddress": "grace@example.org",
    "OriginalAddress": "Grace+list@example.org",
    "Manual": True,
    "Reason": "asked by telephone",
}
EXAMPLES: Final[Mapping[str, tuple[str, Any, Any]]] = {
    "Send": (
        "Hand in a message. Files go as base64 within the JSON, or as files of a multipart form: alternativefile, inlinefile, attachedfile.",
        {
            "To": [{"Name": "Grace Hopper", "Address": "grace@example.org"}],
            "Subject": "Grüße",
            "Text": "Hello, Grace.\n",
            "Extra": {"order": "4711"},
        },
        {
            "MessageID": "<0Zk3v9hVqLk1W2x3Y4z5Aw@mail.example.com>",
            "Submissions": [
                {"Address": "grace@example.org", "QueueMsgID": 771, "FromID": "mzxw6ytboi2gk3tunbuw4zzanf"}
            ],
        },
    ),
    "SuppressionList": (
        "The suppression list of the account, by base address.",
        {},
        {"Suppressions": [_SUPPRESSION]},
    ),
    "SuppressionAdd": (
        "Suppress an address in all its spellings.",
        {"EmailAddress": "Grace+list@example.org", "Manual": True, "Reason": "asked by telephone"},
        {},
    ),
    "SuppressionRemove": ("Take an address off the list.", {"EmailAddress": "grace@example.org"}, {}),
    "SuppressionPresent": (
        "Whether an address is on the list.",
        {"EmailAddress": "grace@example.org"},
        {"Present": True},
    ),
}
LATER: Final = (
    "MessageGet",
    "MessageRawGet",
    "MessagePartGet",
    "MessageDelete",
    "MessageFlagsAdd",
    "MessageFlagsRemove",
    "MessageMove",
)
"""Methods of mox that this version does not have."""


def index() -> Response:
    """Return the page that lists the methods."""
    here = "".join(f'<li><a href="{name}">{name}</a>: {escape(text)}</li>' for name, (text, _, _) in EXAMPLES.items())
    later = "".join(f'<li><a href="{name}">{name}</a>: not available in this version.</li>' for name in LATER)
    return _page(
        "webapi", f"<h1>webapi</h1><p>Compatible with mox. HTTP Basic, with a login.</p><ul>{here}{later}</ul>"
    )


def method(name: str) -> Response:
    """Return the page of one method."""
    if name in LATER:
        return _page(name, f"<h1>{name}</h1><p>Not available in this version.</p>")
    text, request, response = EXAMPLES[name]
    shown = escape(json.dumps(request, indent=2, ensure_ascii=False))
    answer = escape(json.dumps(response, indent=2, ensure_ascii=False))
    form = (
        f'<form method="post" action="{MOUNT}{name}" enctype="multipart/form-data">'
        f'<textarea name="request" rows="12" cols="80">{shown}</textarea><br><button>Call</button></form>'
    )
    return _page(name, f"<h1>{name}</h1><p>{escape(text)}</p><h2>Request</h2>{form}<h2>Answer</h2><pre>{answer}</pre>")


def _page(title: str, body: str) -> Response:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
        f'<body><p><a href="{MOUNT}">webapi</a></p>{body}</body></html>',
        headers=HEADERS,
    )
