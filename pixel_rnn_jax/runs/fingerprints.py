"""Digests of arrays and of what is written about them, which notice any byte that changes."""

import hashlib
import json
from typing import Any

import numpy as np


def fingerprint(array: np.ndarray) -> dict[str, str]:
    """Returns the type of an array and a digest of its bytes."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return {"type": type_of(array), "sha256": hashlib.sha256(data.data).hexdigest()}


def type_of(array: Any) -> str:
    """Returns the type and the shape of an array, as "float32[7, 5]"."""
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def sha256_of_json(value: Any) -> str:
    """Returns the digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
