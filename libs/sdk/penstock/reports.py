"""Texts that are shown as reports: a step returns `Markdown(...)` or `Html(...)` and everybody can read them.

Both are str subclasses that mark how a result is displayed. Notebooks render them.
"""

from __future__ import annotations


class Markdown(str):
    """A text in Markdown, such as `Markdown("# Quality: all rows are complete")`."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)


class Html(str):
    """A page or a part of one in HTML. The platform keeps it and never renders it: previews show its source."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)
