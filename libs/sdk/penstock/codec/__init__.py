"""Type-preserving JSON.

Plain JSON data is encoded unchanged. Any other value is an object with the key `$type`:

    nan, inf                 {"$type": "float", "value": "nan"}
    integers beyond 64 bits  {"$type": "int", "value": "0x…"}
    tuples, sets             {"$type": "tuple", "items": […]}
    other dictionaries       {"$type": "dict", "items": [[key, value], …]}
    bytes, invalid Unicode   {"$type": "bytes", "base64": "…"}
    dates, decimals, ids     {"$type": "datetime", "value": "2024-05-01T12:00:00"}
    numpy numbers            {"$type": "numpy", "dtype": "float32", "value": 0.5}
    enumerations             {"$type": "module:Class", "name": "RED"}; "$value" is the text of a StrEnum, …
    dataclasses, NamedTuples {"$type": "module:Class", "depth": 3, …}
    pydantic models          {"$type": "module:Class", "model": {…}}; "set" names the fields that were given

Values round-trip whatever the reader's type hint is, and any JSON parser reads them. Promise: `decode` executes no code
from the data; it only creates instances of data classes that the user's modules define.
"""

from penstock.codec.decoder import MismatchError, decode
from penstock.codec.encoder import NotJsonError, encode
from penstock.codec.plain_json import plain

__all__ = ["MismatchError", "NotJsonError", "decode", "encode", "plain"]
