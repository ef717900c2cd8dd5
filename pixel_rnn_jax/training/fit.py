"""Training on arrays in memory."""

import dataclasses
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.typing import ArrayLike

from pixel_rnn_jax.data import Batch, Split
from pixel_rnn_jax.data.dataset import Dataset, image_ids, random_order
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.model import likelihoods
from pixel_rnn_jax.model.config import CONDITIONS, ModelConfig
from pixel_rnn_jax.runs.config import Config
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.training.log import OnRecord
from pixel_rnn_jax.training.step import Loss
from pixel_rnn_jax.training.train import Training


def fit(
    images: ArrayLike | Iterator[Batch],
    config: Config | ModelConfig | None = None,
    condition: ArrayLike | None = None,
    *,
    validation: float | ArrayLike | tuple[ArrayLike, ArrayLike] = 0.1,
    workdir: epath.PathLike | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    on_record: OnRecord | None = None,
) -> ImageModel:
    """Trains a model on arrays, and returns it with the parameters that validate best.

    Raises as `train`, and a `UserError` if the arrays do not fit one another or the config; after
    Ctrl-C a run with a workdir has been saved there.

    Args:
        images: `[N, H, W]` or `[N, H, W, C]`: integers from 0 to K - 1, or for
            `output="gaussian_mixture"` any real numbers. Or an iterator of `data.Batch`, each of
            `train.batch_size` images; then pass validation images, and note that resuming does not
            rewind it.
        config: The model alone, or the whole config, from whose data only `levels` (0: the largest
            value + 1), `binarize` and `flip` are used.
        condition: `[N]` classes, as integers from 0 on or as names; `[N, D]` vectors or
            `[N, H, W, D]` maps. The config's model takes as many as there are, if it names none.
        validation: The share of the images to validate on, images of their own, or a pair of images
            and their condition.
        workdir: Where the run is kept, to resume it by the same call; None keeps nothing.
        optimizer: An update rule of Optax, instead of the config's; give it again to resume.
        loss: A function of the `PixelRNN`, its parameters, a batch and the keys of dropout or None,
            instead of the mean of -log p(image); its records are "train/loss", and validation and
            the best step stay by likelihood.
        on_record: A function of the step and its figures, called for each record of the log.

    >>> images = np.random.default_rng(0).integers(3, size=(40, 4, 4))
    >>> config = prnn.Config(prnn.ModelConfig("row_lstm", 1, 4), train=prnn.TrainConfig(steps=2))
    >>> prnn.fit(images, config).levels
    3
    """
    if isinstance(config, ModelConfig):
        config = Config(model=config)
    config, training, held_out = array_splits(config or Config(), images, condition, validation)
    splits = {"train": training} if training is not None else {}
    splits["validation"] = held_out
    with tempfile.TemporaryDirectory() as temporary:
        run = Training(
            config,
            workdir or temporary,
            splits,
            batches=images if isinstance(images, Iterator) else None,
            optimizer=optimizer,
            loss=loss,
            on_record=on_record,
            pictures=workdir is not None,
        ).run()
    # On one device of this process, wherever all of them have trained it.
    model = run.image_model
    params = jax.tree.map(jnp.asarray, jax.device_get(model.params))
    return ImageModel(model.pixel_rnn, params, model.class_names)


def array_splits(
    config: Config, images: Any, condition: Any, validation: Any
) -> tuple[Config, Split | None, Split]:
    """Returns the config, training images (None for an iterator) and validation images of `fit`.

    In the config, `data.levels` of 0 becomes the largest value + 1, and a model without condition
    takes the arrays'.
    """
    is_share = isinstance(validation, (int, float, np.number))
    if is_share and (isinstance(images, Iterator) or not 0 < validation < 1):
        rule = "be a share between 0 and 1, or images; images with an iterator"
        raise UserError(f"validation must {rule}, got {validation}")
    own: tuple[Any, Any] = validation if isinstance(validation, tuple) else (validation, None)
    train = None
    if isinstance(images, Iterator):
        if condition is not None:
            raise UserError("condition is of arrays: the batches of an iterator have their own")
        whole = held_out = _make_dataset("validation", *own)
    else:
        whole = train = _make_dataset("training", images, condition)
        if is_share:
            order, count = random_order(len(whole)), max(1, round(float(validation) * len(whole)))
            held_out = _part("validation", whole, order[:count])
            train = _part("training", whole, order[count:])
        else:
            held_out = _make_dataset("validation", *own, whole.class_names)
    model, levels = config.model, config.data.levels
    if not model.condition.size:
        if whole.labels is not None:
            count = len(whole.class_names) or int(whole.labels.max()) + 1
            model = dataclasses.replace(model, num_classes=max(2, count))
        elif whole.condition is not None:
            field = CONDITIONS["vector" if whole.condition.ndim == 2 else "map"]
            model = dataclasses.replace(model, **{field: whole.condition.shape[-1]})
    real = likelihoods.likelihood_class(model).standardised
    if not levels and not real and whole.images.dtype.kind in "biu":
        # A value may occur only in validation.
        levels = max(2, int(whole.images.max()) + 1, int(held_out.images.max()) + 1)
    data = dataclasses.replace(config.data, name="arrays in memory", levels=levels)
    config = dataclasses.replace(config, model=model, data=data)
    training = None if train is None else Split(train, model, data)
    return config, training, Split(held_out, model, data)


def _make_dataset(
    name: str, images: Any, condition: Any, class_names: tuple[str, ...] = ()
) -> Dataset:
    try:
        images, labels = np.asarray(images), None
    except ValueError as error:
        raise UserError(f"{name} images must be of one shape: {error}") from error
    if not images.ndim:
        raise UserError(f"{name} images must be an array or an iterator, got {images}")
    if condition is not None and (condition := np.asarray(condition)).ndim == 1:
        labels, condition = condition, None
    ids = image_ids(name, len(images))
    return Dataset(f"the {name} set", images, ids, None, labels, class_names, condition)


def _part(name: str, whole: Dataset, rows: np.ndarray) -> Dataset:
    part = whole.part(np.sort(rows))
    return dataclasses.replace(part, name=f"the {name} set", ids=image_ids(name, len(part)))
