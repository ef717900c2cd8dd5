"""Scores of single images: how likely each is under the model of a run."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from pixel_rnn_jax.config import TrainConfig
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training.evaluate import Evaluation, nats_of_images, summary
from pixel_rnn_jax.training.own_images import OwnImages

PyTree = Any
Images = Source | OwnImages


@dataclass(frozen=True)
class Scores:
    """The negative log-likelihood of every image, and their mean.

    Attributes:
        evaluation: The mean.
        nats: `[N]` float64, those of each image.
        nats_per_value: `[N, H, W, C]`, those of each value, if they were asked for.
    """

    evaluation: Evaluation
    nats: np.ndarray
    nats_per_value: np.ndarray | None = None

    def arrays(self, names: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what a file of scores holds, by name; `names` are those of the images, `[N]`."""
        found = {"nats": self.nats, "names": names}
        if not self.evaluation.real:
            found["bits_per_dim"] = np.asarray(bits_per_dim(self.nats, self.evaluation.dims))
        if self.nats_per_value is not None:
            found["nats_per_value"] = self.nats_per_value
        return found


def score(
    model: PixelRNN,
    params: PyTree,
    images: Images,
    *,
    batch_size: int = TrainConfig.eval_batch_size,
    step: int | None = None,
    per_value: bool = False,
) -> Scores:
    """Scores every image under a model, with `per_value` also each value.

    The arrays are the same in every process. `step` is the training step of the parameters.

    Raises:
        UserError: A value does not fit the model, or a file is damaged.
    """
    mesh = devices.make_mesh()
    params = jax.device_put(params, devices.replicated(mesh))
    found = nats_of_images(model, params, images, batch_size, mesh, per_value=per_value)
    by_scale = found.sum(axis=(2, 3, 4), dtype=np.float64) if per_value else found
    return Scores(
        summary(by_scale, model, step=step),
        by_scale.sum(-1),
        found.sum(axis=1) if per_value else None,
    )
