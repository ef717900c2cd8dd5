"""Files of several models, which one process writes and others decode.

PYTHONPATH=tests python -m helpers.portable_files write FOLDER
PYTHONPATH=tests python -m helpers.portable_files check FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from helpers.codec_streams import random_images, small_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.model.likelihoods import value_dtype

LOGISTIC = dict(output="discretized_logistic_mixture", mixtures=3)
MODELS = {
    "pixel_cnn_8x8": dict(architecture="pixel_cnn", shape=(8, 8, 1), levels=2, layers=4),
    "row_lstm_classes_logistic": dict(shape=(12, 8, 3), levels=256, num_classes=3, **LOGISTIC),
    "diagonal_softmax": dict(architecture="diagonal_bilstm", shape=(16, 16, 1), levels=256),
    "scales_logistic": dict(
        architecture="pixel_cnn", shape=(32, 32, 1), levels=17, scales=(8, 32), **LOGISTIC
    ),
    "coupled_16_bits": dict(
        shape=(6, 5, 3), levels=2**16, output="coupled_logistic_mixture", mixtures=3
    ),
    "row_lstm_64x64": dict(shape=(64, 64, 1), levels=4, features=8, layers=2),
}
COUNT = 5


def write(folder: Path) -> None:
    for name, options in MODELS.items():
        model = small_model(**options)
        images = random_images(model, COUNT)
        classes = np.arange(COUNT) % 3 if model.config.num_classes else None
        model.save(folder / f"{name}.safetensors")
        (folder / f"{name}.prnn").write_bytes(model.compress(images, classes))
        np.savez_compressed(folder / f"{name}.npz", images=images.astype(value_dtype(model.levels)))


def check(folder: Path, pattern: str = "*") -> None:
    files = sorted(folder.glob(f"{pattern}.prnn"))
    assert files
    for file in files:
        model = prnn.load(file.with_suffix(".safetensors"))
        images, classes = model.decompress(file.read_bytes(), return_condition=True)
        with np.load(file.with_suffix(".npz")) as stored:
            np.testing.assert_array_equal(images, stored["images"])
        if model.config.num_classes:
            np.testing.assert_array_equal(classes, np.arange(COUNT) % 3)
        print(file.stem, flush=True)


if __name__ == "__main__":
    command, folder = sys.argv[1:]
    {"write": write, "check": check}[command](Path(folder))
