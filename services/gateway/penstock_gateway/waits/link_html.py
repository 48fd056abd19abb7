"""The HTML page of a signed link: the question with its choices as buttons, or the result.

It loads nothing, has no scripts, and escapes every text, since questions, choices and names come from users.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from fastapi import Response

from penstock_contracts.waits import COMMENT_LIMIT, NAME_LIMIT

_STYLE = """
:root { color-scheme: light dark }
body { font: 1.05rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 12vh auto 4rem; padding: 0 1.5rem }
h1 { font-size: 1.5rem; line-height: 1.3; white-space: pre-wrap; overflow-wrap: anywhere }
small { opacity: .7; overflow-wrap: anywhere }
label { display: block; margin: 1rem 0 }
input, textarea { display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .5rem }
button { font: inherit; padding: .6rem 1.4rem; margin: .5rem .7rem 0 0; cursor: pointer; overflow-wrap: anywhere }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-robots-tag": "noindex",
}


def question_page(question: str, about: str, choices: Sequence[str]) -> Response:
    """Return the page with a question and its choices; a button posts the form to the same URL."""
    buttons = "\n".join(
        f'<button type="submit" name="choice" value="{escape(choice)}">{escape(choice)}</button>' for choice in choices
    )
    return _page(
        200,
        question,
        about,
        f"""<form method="post">
<label>Your name <input name="name" maxlength="{NAME_LIMIT}" autocomplete="name"></label>
<label>Comment <textarea name="comment" rows="3" maxlength="{COMMENT_LIMIT}"></textarea></label>
{buttons}
</form>""",
    )


def result_page(status: int, title: str, text: str = "", about: str = "") -> Response:
    """Return the page with an answer or an error."""
    return _page(status, title, about, f"<p>{escape(text)}</p>" if text else "")


def _page(status: int, title: str, about: str, body: str) -> Response:
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<small>{escape(about)}</small>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""
    return Response(page.encode("utf-8", "replace"), status, _HEADERS, "text/html; charset=utf-8")
