"""Values as JSON: what has no form there gets one. Loads nothing, for every command prints with it."""

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """JSON has no infinity: `null` stands for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def bytes_as_hex(value: object) -> str:
    """What `json` asks for values that it does not know. Raises TypeError."""
    if isinstance(value, bytes | bytearray):
        return value.hex()
    raise TypeError(f"{type(value).__name__} is not JSON")


def compact(value: object) -> str:
    """For people and programs that read our output: JSON on one line."""
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, default=bytes_as_hex)
