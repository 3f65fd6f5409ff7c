"""How features are stored: as float32, as float16, or as int8 with a scale for each row of a component."""

import numpy as np

from bertcls_hf.errors import ArgumentsError


DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8}
# A row of int8 numbers ends with its scale: the bytes of a float32.
SCALE_BYTES = 4
LARGEST_INT8 = 127


def stored_width(width: int, dtype: str) -> int:
    """Returns how many numbers of the format a row of `width` features takes."""
    return width + SCALE_BYTES if dtype == "int8" else width


def encode_features(features: np.ndarray, dtype: str) -> np.ndarray:
    """Converts (rows, width) float32 features to (rows, `stored_width`) numbers of the format.

    In int8, a row's largest magnitude becomes 127, and every feature is off by at most a 254th of it.

    Raises:
        ArgumentsError: if a feature is too large for float16, or not finite.
    """
    if dtype == "int8":
        return _as_int8(features)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(features, dtype=DTYPES[dtype])
    if dtype == "float16" and not np.isfinite(stored).all():
        raise ArgumentsError(
            "--boost_dtype: some features are not finite in float16, which ends at 65,504: use float32, or "
            "--boost_storage float32"
        )
    return stored


def _as_int8(features: np.ndarray) -> np.ndarray:
    if not np.isfinite(features).all():
        raise ArgumentsError("--boost_storage int8: some features are not finite: use float32")
    scale = (np.abs(features).max(axis=1, keepdims=True) / LARGEST_INT8).astype(np.float32)
    numbers = np.rint(features / np.where(scale == 0, 1, scale)).astype(np.int8)
    return np.concatenate([numbers, scale.view(np.int8)], axis=1)


def decode_features(stored: np.ndarray) -> np.ndarray:
    """Returns the (rows, width) float32 features of stored rows."""
    if stored.dtype != np.int8:
        return stored.astype(np.float32, copy=False)
    scale = np.ascontiguousarray(stored[:, -SCALE_BYTES:]).view(np.float32)
    return stored[:, :-SCALE_BYTES] * scale
