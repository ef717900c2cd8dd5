"""Writes a set of spins whose entropy is known, to compare a likelihood with what is possible.

    python benchmarks/ising.py --out=ising.npz

Each image is an independent, exact draw of the two-dimensional Ising model on a torus at its
critical temperature. Each row is drawn given the row before and the first row, by powers of the
transfer matrix, whose side is the 2^W states of a row. No model can have a mean negative
log-likelihood below the entropy, which is printed. The exact mean of the images of each split is
printed too: a model's mean minus this mean estimates its divergence.
"""

import math
from typing import Any

import numpy as np
import timing
import tqdm

BETA = math.log(1 + math.sqrt(2)) / 2
"""The critical inverse temperature."""
SPLITS = {"train": 50_000, "validation": 5_000, "test": 5_000}


def transfer_matrix(width: int, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows, `[2**W, W]` of 0 and 1, and the matrix of two neighbouring ones.

    The matrix has exp(beta * (bonds within the first row + bonds between both)).
    """
    rows = np.arange(2**width)[:, None] >> np.arange(width) & 1
    spins = 2.0 * rows - 1
    within = (spins * np.roll(spins, 1, axis=1)).sum(1)
    return rows, np.exp(beta * (within[:, None] + spins @ spins.T))


def log_z(height: int, width: int, beta: float) -> float:
    """Returns the logarithm of the partition function, the trace of a power of the matrix."""
    _, matrix = transfer_matrix(width, beta)
    # Symmetric with half of the bonds within a row on either side.
    root = np.sqrt(np.diag(matrix) / np.exp(beta * width))
    values = np.linalg.eigvalsh(matrix / root[:, None] * root[None])
    largest = values.max()
    return height * math.log(largest) + math.log(((values / largest) ** height).sum())


def entropy(height: int, width: int, beta: float) -> float:
    """Returns the entropy of an image in nats: log Z - beta * d(log Z)/d(beta)."""
    step = 1e-4
    below, above = (log_z(height, width, beta + change) for change in (-step, step))
    return log_z(height, width, beta) - beta * (above - below) / (2 * step)


def nats(images: np.ndarray, beta: float) -> np.ndarray:
    """Returns the exact negative log-probability of each image, `[N]`."""
    spins = 2.0 * images[..., 0] - 1
    neighbours = np.roll(spins, 1, axis=1) + np.roll(spins, 1, axis=2)
    height, width = spins.shape[1:]
    return log_z(height, width, beta) - beta * (spins * neighbours).sum((1, 2))


def draw(count: int, height: int, width: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Returns `count` independent images, `[N, H, W, 1]` of 0 and 1."""
    rows, matrix = transfer_matrix(width, beta)
    matrix /= np.linalg.norm(matrix, 2)  # So that no power overflows.
    powers = [matrix]
    while len(powers) < height:
        powers.append(powers[-1] @ matrix)
    first = choose(np.tile(np.diag(powers[-1]), (count, 1)), rng)
    drawn = [first]
    for left in range(height - 2, -1, -1):  # Rows that follow the next one.
        chances = matrix[drawn[-1]] * powers[left][:, first].T
        drawn.append(choose(chances, rng))
    return rows[np.stack(drawn, axis=1)][..., None].astype(np.uint8)


def choose(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns an index for each row of unnormalised probabilities."""
    sums = chances.cumsum(axis=1)
    return (sums < rng.random((len(sums), 1)) * sums[:, -1:]).sum(axis=1)


def main(arguments: list[str] | None = None) -> None:
    """Writes the set and prints its entropy."""
    flags = timing.parser(__doc__)
    flags.add_argument("--out", required=True, help="an .npz file")
    flags.add_argument("--side", type=int, default=10, help="default: %(default)s")
    options = flags.parse_args(arguments)
    side, rng, count = options.side, np.random.default_rng(0), sum(SPLITS.values())
    starts = tqdm.tqdm(range(0, count, 1000), "drawing", unit="thousand")
    pieces = [draw(min(1000, count - i), side, side, BETA, rng) for i in starts]
    ends = np.cumsum([*SPLITS.values()])[:-1]
    arrays: dict[str, Any] = dict(zip(SPLITS, np.split(np.concatenate(pieces), ends), strict=True))
    np.savez_compressed(options.out, **arrays)
    print(f"{options.out}: {count:,} images of {side}x{side}")
    least = entropy(side, side, BETA)
    print(f"entropy: {least:.3f} nats an image, {least / math.log(2) / side**2:.4f} bits/dim")
    for name, images in arrays.items():
        print(f"{name}: {nats(images, BETA).mean():.3f} nats an image")


if __name__ == "__main__":
    main()
