"""torch: tensors, state dictionaries and whole modules in a safetensors file, which holds numbers and JSON, no code.

The tensors have the names that `state_dict()` gives them, so that every reader of safetensors finds the weights. The
file's metadata has, as JSON under `penstock`, how they belong together: of a module its class, by name, and its
attributes. Loading imports that class, which must be a `torch.nn.Module`, and gives a new object of it the attributes
back, as unpickling does; but nothing in the file is called. Tensors come back on the CPU.
"""

# pyright: reportMissingImports=false
# torch and safetensors are the user's: neither is needed to work on Penstock.

from __future__ import annotations

import importlib.util
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import torch

from penstock.codec import scalars
from penstock.serialize import project_types
from penstock.serialize.formats import FormatNotApplicableError

METADATA_KEY = "penstock"
_MODULE_STATE = ("_parameters", "_buffers", "_modules")
_CONTAINERS: dict[str, type] = {"tuple": tuple, "set": set, "dict": dict, "ordered": OrderedDict, "size": torch.Size}
_CONTAINER_NAMES = {cls: name for name, cls in _CONTAINERS.items()}


def write(value: Any, path: Path) -> bool:
    """Write a tensor, a dictionary of tensors, or a module; returns whether it has a module of a project class.

    Raises:
        FormatNotApplicableError: a part is neither a dense tensor nor plain data; the message names it.
    """
    if importlib.util.find_spec("safetensors") is None:
        raise FormatNotApplicableError("it needs safetensors, which is not installed: pip install safetensors")
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    writer = _Writer()
    about = json.dumps({"tree": writer.encode(value, ""), "modules": writer.modules}, separators=(",", ":"))
    try:
        save_file(writer.tensors, path, {METADATA_KEY: about})
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise FormatNotApplicableError(f"safetensors cannot store it: {error}") from error
    return project_types.any_in_project({one["class"].partition(":")[0] for one in writer.modules})


def read(path: Path) -> Any:
    """Read what `write` wrote; any other safetensors file as a dictionary of tensors.

    Raises:
        ValueError: the file names a class that is no module.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    if METADATA_KEY not in metadata:
        return tensors
    about = json.loads(metadata[METADATA_KEY])
    return _Reader(tensors, about["modules"]).decode(about["tree"])


class _Writer:
    """Collects the tensors of a value; `modules` holds each module once, however often it is referred to."""

    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}
        self.modules: list[Any] = []
        self._names: dict[Any, str] = {}
        self._storages: set[int] = set()
        self._numbers: dict[int, int] = {}
        # Objects are identified by their address, so they must live until the end.
        self._kept: list[Any] = []

    def encode(self, value: Any, name: str) -> Any:
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return {"float": value.hex()}
        if isinstance(value, torch.nn.Module):
            return {"module": self._module(value, name)}
        if isinstance(value, torch.Tensor):
            return self._tensor(value, name)
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if type(value) is list:
            return [self.encode(entry, _join(name, index)) for index, entry in enumerate(cast("list[Any]", value))]
        kind = _CONTAINER_NAMES.get(type(value))
        if kind in ("dict", "ordered"):
            return self._mapping(value, name, kind)
        if kind is not None:
            return {kind: [self.encode(entry, _join(name, index)) for index, entry in enumerate(value)]}
        if getattr(torch.nn.functional, getattr(value, "__name__", ""), None) is value:
            return {"function": value.__name__}
        raise FormatNotApplicableError(
            f"{name or 'it'} is a {type(value).__qualname__}, which is neither a tensor nor plain data"
        )

    def _mapping(self, value: Any, name: str, kind: str) -> Any:
        entries = [[self.encode(key, name), self.encode(entry, _join(name, key))] for key, entry in value.items()]
        # `state_dict()` notes the versions of modules there.
        more = getattr(value, "_metadata", None)
        return {kind: entries} | ({"metadata": self.encode(more, name)} if more is not None else {})

    def _tensor(self, value: Any, name: str) -> Any:
        parameter = type(value) is torch.nn.Parameter
        if not parameter and type(value) is not torch.Tensor:
            raise FormatNotApplicableError(
                f"{name or 'it'} is a {type(value).__qualname__}, which is more than a tensor"
            )
        if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
            raise FormatNotApplicableError(f"{name or 'it'} is not a dense tensor")
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else id(value)
        if place not in self._names:
            key = name or "tensor"
            while key in self.tensors:
                key += "_"
            self._names[place] = key
            dense = value.detach().cpu().contiguous()
            storage = dense.untyped_storage().data_ptr()
            self.tensors[key] = dense.clone() if storage in self._storages else dense
            self._storages.add(storage)
            self._kept.append(value)
        return {"tensor": self._names[place], "parameter": parameter, "grad": bool(value.requires_grad)}

    def _module(self, module: Any, name: str) -> int:
        if id(module) in self._numbers:
            return self._numbers[id(module)]
        cls: type = type(module)
        found = scalars.name_of(cls)
        if found is None or not _allowed(cls):
            raise FormatNotApplicableError(
                f"its class {cls.__qualname__} cannot be found by its name: define it at the top of a module"
            )
        number = self._numbers[id(module)] = len(self.modules)
        self._kept.append(module)
        self.modules.append(None)
        state = module.__getstate__() if hasattr(cls, "__getstate__") else None
        state = dict(module.__dict__) if state is None else state
        if type(state) is not dict:
            raise FormatNotApplicableError(f"{cls.__qualname__} has custom state (__getstate__ or __reduce__)")
        fresh = torch.nn.Module().__dict__
        encoded = {
            key: self.encode(entry, name if key in _MODULE_STATE else _join(name, key))
            for key, entry in cast("dict[str, Any]", state).items()
            # Hooks are code: none is the only thing that can be kept.
            if key in _MODULE_STATE or key not in fresh or entry != fresh[key]
        }
        self.modules[number] = {"class": found, "state": encoded}
        return number


class _Reader:
    """Rebuilds the value; each tensor and each module becomes one object, however often it is referenced."""

    def __init__(self, tensors: dict[str, Any], modules: list[Any]) -> None:
        self._tensors = tensors
        self._modules = modules
        self._built: dict[int, Any] = {}
        self._parameters: dict[str, Any] = {}

    def decode(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.decode(entry) for entry in cast("list[Any]", data)]
        match data:
            case {"float": text}:
                return float.fromhex(text)
            case {"tensor": name, "parameter": parameter, "grad": grad}:
                return self._tensor(name, grad, parameter=parameter)
            case {"module": number}:
                return self._module(number)
            case {"dtype": name} if isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            case {"function": name} if not name.startswith("_"):
                return getattr(torch.nn.functional, name)
            case dict():
                return self._container(cast("dict[str, Any]", data))
            case _:
                return data

    def _container(self, data: dict[str, Any]) -> Any:
        kind, entries = next(iter(data.items()))
        if kind not in _CONTAINERS:
            raise ValueError(f"{kind!r} has an unknown form")
        made: Any = _CONTAINERS[kind](self.decode(entries))
        if "metadata" in data:
            made._metadata = self.decode(data["metadata"])
        return made

    def _tensor(self, name: str, grad: bool, *, parameter: bool) -> Any:
        tensor = self._tensors[name]
        if parameter:
            if name not in self._parameters:
                self._parameters[name] = torch.nn.Parameter(tensor, requires_grad=grad)
            return self._parameters[name]
        return tensor.requires_grad_() if grad else tensor

    def _module(self, number: int) -> Any:
        if number in self._built:
            return self._built[number]
        about = self._modules[number]
        cls: Any = scalars.find(about["class"])
        if not isinstance(cls, type) or not issubclass(cls, torch.nn.Module) or not _allowed(cls):
            raise ValueError(f"{about['class']!r} is not a subclass of torch.nn.Module")
        made: Any = cast("Any", cls).__new__(cls)
        torch.nn.Module.__init__(made)
        self._built[number] = made
        made.__setstate__({key: self.decode(entry) for key, entry in about["state"].items()})
        return made


def _allowed(cls: type) -> bool:
    """Of torch's own classes the building blocks only: others, such as compiled graphs, hold code."""
    return not cls.__module__.startswith("torch.") or cls.__module__.startswith("torch.nn.")


def _join(name: str, part: object) -> str:
    return f"{name}.{part}" if name else str(part)
