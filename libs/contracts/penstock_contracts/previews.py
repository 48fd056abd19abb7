"""Previews of artifacts for people and consoles."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class MakePreview(_Model):
    """Make a preview of an artifact. All fields but the digest are those of its reference; omitted ones are guessed."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    format: str = Field(default="", max_length=100)
    media_type: str = Field(default="", max_length=200)
    filename: str = Field(default="", max_length=300)
    unsafe: bool = Field(default=False, description="the format is marked unsafe: the content is not opened")


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
    """The preview of an artifact; `kind` says which fields are set.

    `table`: `columns` and the first `rows`. `text`: the first lines as `text`, in `language`; sanitize it before
    rendering. `image`: `picture`. `none`: no preview, with `reason`.
    """

    sha256: str
    size: int = Field(description="of the artifact, in bytes")
    kind: Literal["table", "text", "image", "none"]
    facts: dict[str, str | int | float] = Field(
        default_factory=dict, description="properties of the whole artifact, such as the number of rows"
    )
    truncated: bool = Field(default=False, description="whether the artifact has more than the preview")
    columns: list[Column] = Field(default_factory=list[Column])
    rows: list[list[str | int | float | bool | None]] = Field(
        default_factory=list[list[str | int | float | bool | None]]
    )
    text: str = ""
    language: Literal["", "text", "json", "markdown", "html", "hex"] = ""
    picture: Picture | None = None
    reason: str = ""


class PreviewReply(_Model):
    """Reply to `MakePreview`: the preview; without preview and error, the artifact does not exist."""

    preview: Preview | None = None
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether a retry may succeed")
