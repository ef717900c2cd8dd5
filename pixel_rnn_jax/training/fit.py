"""Training on arrays in memory."""

import contextlib
import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import optax
from etils import epath
from jax.typing import ArrayLike

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, ModelConfig
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.training.train import train


def fit(
    images: ArrayLike,
    config: Config | ModelConfig | None = None,
    condition: ArrayLike | None = None,
    *,
    validation: float | ArrayLike | tuple[ArrayLike, ArrayLike] = 0.1,
    workdir: epath.PathLike | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> ImageModel:
    """Trains a model on arrays, and returns it with the parameters that validate best.

    Args:
        images: `[N, H, W]` or `[N, H, W, C]`: integers from 0 to K - 1, or for
            `output="gaussian_mixture"` any real numbers.
        config: The model alone, or the whole config: `train.steps`, `train.patience`, `seed` and so
            on. Of its data only `levels` (0 takes the largest value + 1), `binarize` and `flip`
            are used.
        condition: `[N]` classes, as integers from 0 on or as names; `[N, D]` vectors or
            `[N, H, W, D]` maps. The config's model takes as many as there are, if it names none.
        validation: The share of the images to validate on, images of their own, or a pair of images
            and their condition.
        workdir: Where the run is kept, to resume it by the same call; None keeps nothing.
        optimizer: An update rule of Optax, instead of the config's; give it again to resume.

    Raises:
        UserError: The arrays do not fit one another or the config; or as `train`.
        KeyboardInterrupt: After Ctrl-C; a run with a workdir has been saved there.

    >>> images = np.random.default_rng(0).integers(3, size=(40, 4, 4))
    >>> config = prnn.Config(prnn.ModelConfig("row_lstm", 1, 4), train=prnn.TrainConfig(steps=2))
    >>> prnn.fit(images, config).levels
    3
    """
    if isinstance(config, ModelConfig):
        config = Config(model=config)
    config, training, held_out = data.array_splits(
        config or Config(), images, condition, validation
    )
    with contextlib.ExitStack() as stack:
        folder = workdir or stack.enter_context(tempfile.TemporaryDirectory())
        splits = {"train": training, "validation": held_out}
        pictures = workdir is not None
        result = train(config, folder, splits, optimizer=optimizer, pictures=pictures)
        # On one device of this process, wherever all of them have trained it.
        params = jax.tree.map(jnp.asarray, jax.device_get(result.run.params))
        return ImageModel.from_run(dataclasses.replace(result.run, params=params))
