"""Bits a code of images that are maps of codes: scalar and categorical input, and counts.

    python benchmarks/codes.py --data_dir=DIR      # the folder of TFDS sets with cifar10

The images are 8x8 maps of 512 codes: CIFAR-10 in patches of 4x4, each replaced by the number of the
nearest of 512 centres of k-means. Their order means nothing, so the same maps are measured under
three numberings: as k-means gives them, by brightness, and shuffled. Each run is a Row LSTM of 2
layers, h=32, for 2,400 steps of 32 maps, by Adam with a rate that falls to zero. The table of
counts predicts a code from its left and its upper neighbour.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from sklearn.cluster import MiniBatchKMeans

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training.train import train

DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the TFDS sets.")
STEPS = flags.DEFINE_integer("steps", 2400, "Steps of a run.")
RATE = flags.DEFINE_float("learning_rate", 1e-2, "Where the cosine of each run begins; Adam.")
CODES, SIDE = 512, 4
IMAGES = {"train": 40_000, "validation": 1_000, "test": 2_000}


def patches(images: np.ndarray) -> np.ndarray:
    """Cuts images `[N, H, W, C]` into vectors, `[N, H / 4, W / 4, 16 C]`."""
    count, height, width, channels = images.shape
    cut = images.reshape(count, height // SIDE, SIDE, width // SIDE, SIDE, channels)
    cut = cut.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // SIDE, width // SIDE, -1)
    return cut.astype(np.float32)


def code_maps() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the maps `[N, 8, 8]` of each split, and the brightness of each code."""
    config = DataConfig("cifar10", data_dir=DATA_DIR.value)
    records = data.open_records(config, "train")
    counts = np.cumsum([0, *IMAGES.values()])
    images = patches(records.read(np.arange(counts[-1])))
    means = MiniBatchKMeans(CODES, batch_size=4096, n_init=1, random_state=0)
    means.fit(images[: IMAGES["train"]].reshape(-1, images.shape[-1]))
    codes = means.predict(images.reshape(-1, images.shape[-1])).reshape(images.shape[:3])
    ends = zip(IMAGES, counts[:-1], counts[1:], strict=True)
    splits = {name: codes[low:high] for name, low, high in ends}
    return splits, means.cluster_centers_.mean(-1)


def by_counts(splits: dict[str, np.ndarray]) -> tuple[float, float]:
    """Returns bits a code and their standard error, by counts of the left and upper neighbour."""

    def neighbours(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        padded = np.pad(maps, ((0, 0), (1, 0), (1, 0)), constant_values=CODES)
        return padded[:, 1:, :-1], padded[:, :-1, 1:], maps

    left, up, own = neighbours(splits["train"])
    single = np.bincount(own.ravel(), minlength=CODES) + 1.0
    single /= single.sum()

    def given(one: np.ndarray) -> np.ndarray:
        counts = np.zeros((CODES + 1, CODES))
        np.add.at(counts, (one.ravel(), own.ravel()), 1)
        return (counts + 50 * single) / (counts.sum(1, keepdims=True) + 50)

    of_left, of_up = given(left), given(up)
    pairs: dict[tuple[int, int], dict[int, int]] = {}
    for a, b, code in zip(left.ravel(), up.ravel(), own.ravel(), strict=True):
        found = pairs.setdefault((a, b), {})
        found[code] = found.get(code, 0) + 1

    def probability(a: int, b: int, code: int) -> float:
        found = pairs.get((a, b), {})
        # Both neighbours, as if they were independent given the code.
        product = of_left[a] * of_up[b] / single
        prior = product[code] / product.sum()
        return (found.get(code, 0) + 20 * prior) / (sum(found.values()) + 20)

    left, up, own = neighbours(splits["test"])
    bits = np.array(
        [
            -np.log2(probability(a, b, code))
            for a, b, code in zip(left.ravel(), up.ravel(), own.ravel(), strict=True)
        ]
    )
    by_map = bits.reshape(len(own), -1).mean(1)
    return float(by_map.mean()), float(by_map.std(ddof=1) / len(by_map) ** 0.5)


def by_model(splits: dict[str, np.ndarray], input_: str) -> tuple[float, float]:
    """Trains a model and returns bits a code of the test maps with their standard error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.npz"
        arrays: dict[str, Any] = {name: maps.astype(np.int32) for name, maps in splits.items()}
        np.savez(path, **arrays)
        config = Config(
            model=ModelConfig("row_lstm", layers=2, features=32, input=input_),
            data=DataConfig(str(path), levels=CODES),
            optimizer=OptimizerConfig(
                "adam", learning_rate=RATE.value, schedule="cosine", ema_decay=0.99
            ),
            train=TrainConfig(
                steps=STEPS.value, batch_size=32, eval_every=STEPS.value, log_every=200
            ),
        )
        found = train(config, Path(folder) / "run").test
    return found.bits_per_dim, found.standard_error / found.dims / np.log(2)


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    devices.set_up_host_devices()
    splits, brightness = code_maps()
    numberings = {
        "k-means": np.arange(CODES),
        "brightness": np.argsort(np.argsort(brightness)),
        "shuffled": np.random.default_rng(0).permutation(CODES),
    }
    rows = [("counts of the left and the upper neighbour", "any", *by_counts(splits))]
    for input_ in ("scalar", "categorical"):
        for name, numbers in numberings.items():
            renumbered = {split: numbers[maps] for split, maps in splits.items()}
            rows.append((f"model.input={input_}", name, *by_model(renumbered, input_)))
    print(f"{'':44}{'numbering':12}bits a code")
    for what, numbering, bits, error in rows:
        print(f"{what:44}{numbering:12}{bits:.3f} ± {error:.3f}")


if __name__ == "__main__":
    app.run(main)
