"""Previews: what an artifact looks like, for people and consoles, without its bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class MakePreview(_Model):
    """Ask for the preview of an artifact. All but the digest is as its reference says; what is left out is guessed."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    format: str = Field(default="", max_length=100)
    media_type: str = Field(default="", max_length=200)
    filename: str = Field(default="", max_length=300)
    unsafe: bool = Field(default=False, description="the format is marked unsafe: the bytes are not looked at")


class Column(_Model):
    """A column of a table."""

    name: str
    type: str = ""


class Picture(_Model):
    """A thumbnail."""

    media_type: Literal["image/png", "image/jpeg"]
    base64: str
    width: int = Field(description="in pixels")
    height: int = Field(description="in pixels")


class Preview(_Model):
    """The preview of an artifact; `kind` says which of the fields below it are filled.

    `table`: `columns` and the first `rows`. `text`: the first lines of `text`, which is source in `language` and never
    to be rendered without a sanitiser. `image`: `picture`. `none`: there is no preview, and `reason` says why.
    """

    sha256: str
    size: int = Field(description="of the artifact, in bytes")
    kind: Literal["table", "text", "image", "none"]
    facts: dict[str, str | int | float] = Field(
        default_factory=dict, description="what is known of the whole, such as its rows"
    )
    truncated: bool = Field(default=False, description="there is more than is shown")
    columns: list[Column] = Field(default_factory=list[Column])
    rows: list[list[str | int | float | bool | None]] = Field(
        default_factory=list[list[str | int | float | bool | None]]
    )
    text: str = ""
    language: Literal["", "text", "json", "markdown", "html", "hex"] = ""
    picture: Picture | None = None
    reason: str = ""


class PreviewReply(_Model):
    """Reply to `MakePreview`: the preview; neither it nor an error when there is no such artifact."""

    preview: Preview | None = None
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether trying again later may help")
