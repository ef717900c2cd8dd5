"""Eight orders of one network: flips and transposes of binarised MNIST, their number as the class.

    python benchmarks/orders.py write orders.npz
    python benchmarks/orders.py evaluate runs/mnist-orders-longer --split=test

docs/results.md has the training between the two.
The mixture log (1/8) sum_T p(T x | T) is exact: T moves values. Jain et al. (2020) do it by masks.
"""

import argparse
from typing import Any

import numpy as np
from jax.scipy.special import logsumexp

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data


def orders_of(split: str, data_dir: str) -> np.ndarray:
    """Returns the images of a split `[8, N, H, W, C]`, the first as they are."""
    dataset = data.open_dataset(prnn.DataConfig("binarized_mnist", data_dir), split)
    images = np.asarray(dataset.images[np.arange(len(dataset))])
    both = [images, images.swapaxes(1, 2)]
    return np.stack([x[:, ::up, ::left] for x in both for up in (1, -1) for left in (1, -1)])


def write(options: argparse.Namespace) -> None:
    """Writes all orders of the training images, and one of each image of the other splits."""
    arrays: dict[str, Any] = {"train_labels": np.arange(8).repeat(50_000)}
    arrays["train"] = np.concatenate(orders_of("train", options.data_dir))
    for split in ("validation", "test"):
        images = orders_of(split, options.data_dir)
        labels = arrays[f"{split}_labels"] = np.arange(images.shape[1]) % 8
        arrays[split] = images[labels, np.arange(len(labels))]
    np.savez(options.path, **arrays)


def evaluate(options: argparse.Namespace) -> None:
    """Prints the nats of each order and of the mixture, and what the mixture gains."""
    model, orders = prnn.load(options.path), orders_of(options.split, options.data_dir)
    terms = [model.log_prob(x, np.full(len(x), number)) for number, x in enumerate(orders)]
    mixture = logsumexp(np.stack(terms), axis=0) - np.log(8)
    for name, log_p in zip([*range(8), "mixture"], [*terms, mixture], strict=True):
        both = (-log_p, mixture - log_p)
        nats, more = (f"{x.mean():.3f} ± {x.std() / len(x) ** 0.5:.3f}" for x in both)
        print(f"order {name}: {nats} nats, {more} more than the mixture")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("write", "evaluate"))
    parser.add_argument("path", help="the .npz file to write, or the run to evaluate")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--split", default="validation")
    options = parser.parse_args()
    (write if options.command == "write" else evaluate)(options)
