"""Bits a code of images that are maps of codes: scalar and categorical input, and counts.

    python benchmarks/codes.py --data_dir=DIR      # the folder of TFDS sets with cifar10

The images are 8x8 maps of 512 codes: CIFAR-10 in patches of 4x4, each replaced by the number of the
nearest of 512 centres of k-means. Their order means nothing, so the same maps are measured under
three numberings: as k-means gives them, by brightness, and shuffled. Each run is a Row LSTM of 2
layers, h=32, for 2,400 steps of 32 maps, by Adam with a rate that falls to zero. The table of
counts predicts a code from its left and its upper neighbour.
"""

import argparse
import collections
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timing
from sklearn.cluster import MiniBatchKMeans

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training.train import train

SIDE = 4
SPLITS = "train", "validation", "test"

Maps = dict[str, np.ndarray]
"""Maps of codes by split, `[N, H, W]`."""


def patches(images: np.ndarray) -> np.ndarray:
    """Cuts images `[N, H, W, C]` into vectors, `[N, H / 4, W / 4, 16 C]`."""
    count, height, width, channels = images.shape
    cut = images.reshape(count, height // SIDE, SIDE, width // SIDE, SIDE, channels)
    cut = cut.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // SIDE, width // SIDE, -1)
    return cut.astype(np.float32)


def code_maps(config: DataConfig, counts: list[int], codes: int) -> tuple[Maps, np.ndarray]:
    """Returns maps of each split, so many of each, and the brightness of each code."""
    ends = np.cumsum([0, *counts])
    vectors = patches(np.asarray(data.open_dataset(config, "train").images[np.arange(ends[-1])]))
    means = MiniBatchKMeans(codes, batch_size=4096, n_init=1, random_state=0)
    means.fit(vectors[: counts[0]].reshape(-1, vectors.shape[-1]))
    maps = means.predict(vectors.reshape(-1, vectors.shape[-1])).reshape(vectors.shape[:3])
    splits = dict(zip(SPLITS, np.split(maps, ends[1:-1]), strict=True))
    return splits, means.cluster_centers_.mean(-1)


def neighbours(maps: np.ndarray, outside: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the codes to the left of each code, those above it, and itself, `[N]` each."""
    padded = np.pad(maps, ((0, 0), (1, 0), (1, 0)), constant_values=outside)
    return padded[:, 1:, :-1].ravel(), padded[:, :-1, 1:].ravel(), maps.ravel()


def by_counts(splits: Maps, codes: int) -> tuple[float, float]:
    """Returns bits a code and their standard error, by counts of the left and upper neighbour.

    The counts of pairs fall back on those of each neighbour, and these on those of single codes.
    """
    left, above, code = neighbours(splits["train"], codes)
    single = np.bincount(code, minlength=codes) + 1.0
    single /= single.sum()

    def given_one(neighbour: np.ndarray) -> np.ndarray:
        counts = np.zeros((codes + 1, codes))
        np.add.at(counts, (neighbour, code), 1)
        return (counts + 50 * single) / (counts.sum(1, keepdims=True) + 50)

    given_left, given_above = given_one(left), given_one(above)
    triples = collections.Counter(zip(left, above, code, strict=True))
    pairs = collections.Counter(zip(left, above, strict=True))

    def bits(left: int, above: int, code: int) -> float:
        # Both neighbours, as if they were independent given the code.
        product = given_left[left] * given_above[above] / single
        prior = product[code] / product.sum()
        return -np.log2((triples[left, above, code] + 20 * prior) / (pairs[left, above] + 20))

    test = zip(*neighbours(splits["test"], codes), strict=True)
    by_map = np.array([bits(*each) for each in test]).reshape(len(splits["test"]), -1).mean(1)
    return float(by_map.mean()), float(by_map.std(ddof=1) / len(by_map) ** 0.5)


def by_model(
    splits: Maps, codes: int, input_: str, options: argparse.Namespace
) -> tuple[float, float]:
    """Trains a model and returns bits a code of the test maps with their standard error."""
    with tempfile.TemporaryDirectory() as folder:
        path, steps = Path(folder) / "codes.npz", options.steps
        arrays: dict[str, Any] = {name: maps.astype(np.int32) for name, maps in splits.items()}
        np.savez(path, **arrays)
        config = Config(
            model=ModelConfig("row_lstm", layers=2, features=32, input=input_),
            data=DataConfig(str(path), levels=codes),
            optimizer=OptimizerConfig("adam", learning_rate=1e-2, weight_decay=0.0, ema_decay=0.99),
            train=TrainConfig(steps=steps, batch_size=32, eval_every=steps, log_every=200),
        )
        test = train(config, Path(folder) / "run").test
        assert test
    return test.bits_per_dim, test.standard_error / test.dims / np.log(2)


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    flags = timing.parser(__doc__)
    flags.add_argument("--data", default="cifar10", help="another set; default: %(default)s")
    flags.add_argument("--data_dir", default="", help="folder of the TFDS sets")
    flags.add_argument(
        "--images",
        type=int,
        nargs=3,
        default=[40_000, 1_000, 2_000],
        metavar="N",
        help="for training, validation and the test; default: %(default)s",
    )
    flags.add_argument("--codes", type=int, default=512, help="default: %(default)s")
    flags.add_argument("--steps", type=int, default=2400, help="of a run; default: %(default)s")
    options = flags.parse_args(arguments)
    devices.set_up_host_devices()
    codes = options.codes
    config = DataConfig(options.data, data_dir=options.data_dir)
    splits, brightness = code_maps(config, options.images, codes)
    numberings = {
        "k-means": np.arange(codes),
        "brightness": np.argsort(np.argsort(brightness)),
        "shuffled": np.random.default_rng(0).permutation(codes),
    }
    rows = [("counts of the left and the upper neighbour", "any", *by_counts(splits, codes))]
    for input_ in ("scalar", "categorical"):
        for name, numbers in numberings.items():
            renumbered = {split: numbers[maps] for split, maps in splits.items()}
            result = by_model(renumbered, codes, input_, options)
            rows.append((f"model.input={input_}", name, *result))
    print(f"on {timing.machine()}\n{'':44}{'numbering':12}bits a code")
    for predictor, numbering, bits, error in rows:
        print(f"{predictor:44}{numbering:12}{bits:.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
