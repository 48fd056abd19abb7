"""`Environment`: what steps need installed, declared in code or by the usual files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock import tracebacks
from penstock.authoring import options
from penstock_core.environments.declaration import EnvironmentDeclaration, InvalidDeclarationError
from penstock_core.environments.image_options import ImageOptions
from penstock_core.errors import DefinitionError

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_INDEX, _EXTRA_INDEX = ("--index-url", "-i"), ("--extra-index-url",)


class Environment:
    """What steps need installed. The platform resolves it to exact versions with hashes, and installs these once.

    Steps in an environment run with the distributions in it and no others; their module must be importable there, so
    import libraries that other environments lack inside of the steps. Files are read when a pipeline is compiled, and
    are looked up beside the file that creates the object.

    Args:
        name: unique in a pipeline.
        requirements: requirements such as `["pandas>=2", "scikit-learn==1.7.2"]`, or the path of a `requirements.txt`.
        python: minor version such as `"3.12"`; default: that of the interpreter that compiles the pipeline.
        constraints: versions of distributions that are installed only if something needs them; a list or a path.
        project: folder with a `pyproject.toml`, whose dependencies are installed, in the versions of `uv.lock` if it
            is there.
        extras: optional dependencies of that project.
        index: URL of the package index instead of the platform's default.
        extra_indexes: URLs of further indexes, which are searched first.
        base: image for pods to install the environment on, such as `"python:3.12-slim"`.
        system: packages that `apt-get` installs in the image, such as `["libgomp1"]`.
        dockerfile: path of a Dockerfile that makes the base. It is built without files of yours.
        image: a complete image by its digest, such as `"registry.example/train@sha256:…"`.
        platforms: platforms of the image, such as `["linux/amd64", "linux/arm64"]`.

    Raises:
        DefinitionError: an argument has the wrong type; with the user's line.
    """

    def __init__(
        self,
        name: str,
        requirements: Sequence[str] | str | os.PathLike[str] = (),
        *,
        python: str | None = None,
        constraints: Sequence[str] | str | os.PathLike[str] = (),
        project: str | os.PathLike[str] | None = None,
        extras: Sequence[str] = (),
        index: str = "",
        extra_indexes: Sequence[str] = (),
        base: str = "",
        system: Sequence[str] = (),
        dockerfile: str | os.PathLike[str] | None = None,
        image: str = "",
        platforms: Sequence[str] = (),
    ) -> None:
        self.name = options.name(name, "environment")
        self._file, self._line = tracebacks.caller()
        self._requirements = _source(requirements, "requirements")
        self._constraints = _source(constraints, "constraints")
        self._python = options.text(python, "python") if python is not None else _PYTHON
        self._project = Path(project) if project is not None else None
        self._extras = options.texts(extras, "extras")
        self._indexes = (options.text(index, "index"), options.texts(extra_indexes, "extra_indexes"))
        self._dockerfile = Path(dockerfile) if dockerfile is not None else None
        self._image = ImageOptions(
            base=options.text(base, "base"),
            system=options.texts(system, "system"),
            image=options.text(image, "image"),
            platforms=options.texts(platforms, "platforms"),
        )
        if extras and project is None:
            raise options.definition_error("extras requires project=…, the folder of the pyproject.toml")
        if project is not None and requirements:
            raise options.definition_error("an Environment has either requirements or a project")

    def __repr__(self) -> str:
        return f"Environment({self.name!r})"

    def declaration(self, within: Path | None = None) -> EnvironmentDeclaration:
        """Return the declaration, with the contents of its files.

        Args:
            within: folder outside of which no file is read; None: any file can be.

        Raises:
            DefinitionError: a file cannot be read, or the declaration is not valid; with the line of the definition.
        """
        index, extra = self._indexes
        found: dict[str, Any] = {"index": index, "extra_indexes": extra}
        try:
            requirements = _Lines(self._requirements, self._folder, within)
            constraints = _Lines(self._constraints, self._folder, within)
            if self._project is not None:
                found |= _project(self._folder / self._project, self._extras)
            else:
                found["requirements"] = tuple(requirements.lines)
            found["constraints"] = tuple(constraints.lines + requirements.constraints)
            found["index"] = index or requirements.index
            found["extra_indexes"] = extra or tuple(requirements.extra_indexes)
            found["image"] = self._image_options()
            return EnvironmentDeclaration(name=self.name, python=self._python, **found)
        except InvalidDeclarationError as error:
            raise DefinitionError(str(error), self._file, self._line) from error
        except (OSError, ValueError) as error:  # unreadable, not UTF-8, not TOML
            raise DefinitionError(f"environment {self.name!r}: {error}", self._file, self._line) from error

    def _image_options(self) -> ImageOptions:
        if self._dockerfile is None:
            return self._image
        return replace(self._image, dockerfile=(self._folder / self._dockerfile).read_text(encoding="utf-8"))

    @property
    def _folder(self) -> Path:
        return Path(self._file).parent if self._file and Path(self._file).is_file() else Path.cwd()


class _Lines:
    """The requirements of a list or of a file in the format of pip, with the files that it includes."""

    def __init__(self, source: tuple[str, ...] | Path, folder: Path, within: Path | None) -> None:
        self.lines: list[str] = []
        self.constraints: list[str] = []
        self.index = ""
        self.extra_indexes: list[str] = []
        self._read: set[Path] = set()
        self._within = within.resolve() if within is not None else None
        if isinstance(source, Path):
            self._file(folder / source, self.lines)
        else:
            self.lines += source

    def _file(self, file: Path, into: list[str]) -> None:
        if file.resolve() in self._read:
            return
        self._read.add(file.resolve())
        if self._within is not None and not file.resolve().is_relative_to(self._within):
            raise InvalidDeclarationError(
                f"the requirements include {file}, which is not in the repository: copy it there"
            )
        for line in _joined(file.read_text(encoding="utf-8")):
            option, value = (*re.split(r"[ =]", line, maxsplit=1), "")[:2]
            value = value.strip()
            if option in ("-r", "--requirement"):
                self._file(file.parent / value, into)
            elif option in ("-c", "--constraint"):
                self._file(file.parent / value, self.constraints)
            elif option in _INDEX:
                self.index = value
            elif option in _EXTRA_INDEX:
                self.extra_indexes.append(value)
            else:
                into.append(re.sub(r"\s+--hash=\S+", "", line))


def _joined(text: str) -> Iterator[str]:
    """The lines of a requirements file without comments, continued ones as one line."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            yield line


def _project(folder: Path, extras: tuple[str, ...]) -> dict[str, Any]:
    """Read the dependencies of a project: from `uv.lock` if there is one, else from `pyproject.toml`."""
    import tomllib  # imported only for compilations: every step imports this module

    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    lock = folder / "uv.lock"
    if lock.is_file():
        return {"pyproject": text, "uv_lock": lock.read_text(encoding="utf-8"), "extras": extras}
    project: dict[str, Any] = tomllib.loads(text).get("project", {})
    optional: dict[str, list[str]] = project.get("optional-dependencies", {})
    unknown = next((name for name in extras if name not in optional), None)
    if unknown is not None:
        raise InvalidDeclarationError(f"{folder / 'pyproject.toml'} has no optional dependencies {unknown!r}")
    wanted = [*project.get("dependencies", []), *(line for name in extras for line in optional[name])]
    return {"requirements": tuple(wanted)}


def _source(given: Any, what: str) -> tuple[str, ...] | Path:
    if isinstance(given, str | os.PathLike):
        return Path(given)
    return options.texts(list(given) if isinstance(given, Sequence) else given, what)


def environment(value: Any) -> str:
    """Return the name of an `Environment`, as the option of a step or pipeline."""
    if not isinstance(value, Environment):
        example = 'Environment("train", ["scikit-learn>=1.7"])'
        raise options.definition_error(f"environment must be an Environment, such as {example}, not {value!r}")
    return value.name
