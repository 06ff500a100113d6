"""Data as classic scripts: a page opened from file:// may load a script beside it, but may not fetch a JSON file."""

import base64
import json
import math
import zlib
from typing import Any

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def data_script(name: str, payload: Any) -> str:
    """A script that hands ``payload`` to the page under ``name``, as ``script_json`` has it."""
    return f"unweave.receive({json.dumps(name)},{script_json(payload)});\n"


def script_json(payload: Any) -> str:
    """A payload as JSON to stand in a script; pure ASCII, and no text in it can end a script tag.

    Raises ``ValueError`` where the payload holds NaN or infinity; ``compact`` turns them to None.
    """
    text = json.dumps(payload, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def packed_script(name: str, content: bytes) -> str:
    """A script that hands JSON to the page under ``name``, deflated, which makes records several times smaller.

    The page gets an object with ``deflated``: the bytes in base 64.
    """
    return data_script(name, {"deflated": base64.b64encode(zlib.compress(content, 6)).decode()})


def compact(value: float | int) -> float | int | None:
    """``value`` to four significant digits, whole numbers as int; None where it is not finite."""
    if value == 0:
        return 0
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
