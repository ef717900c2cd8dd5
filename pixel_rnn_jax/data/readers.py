"""Readers of files of images, by the suffix of the file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pixel_rnn_jax.system.files import load_arrays

Arrays = np.ndarray | Mapping[str, np.ndarray]
READERS: dict[str, Callable[[Path], Arrays]] = {".npy": load_arrays, ".npz": load_arrays}
"""For each suffix a function of the path. It returns images `[N, H, W]` or `[N, H, W, C]`, or the
arrays by their names, as an .npz file has them; a context is closed. A plugin may add a suffix."""
