"""A trained model, by the name of one of the package, a file or a workdir: one way to open it."""

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data
from pixel_rnn_jax.codec import weights
from pixel_rnn_jax.data import ImageFormat, Images, Split
from pixel_rnn_jax.image_model import HUB_FILE, ImageModel
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints, RunIdentity
from pixel_rnn_jax.runs.config import Config, changed_fields
from pixel_rnn_jax.runs.workdir import is_fixed, read_config
from pixel_rnn_jax.system import devices
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import (
    BUNDLED,
    MODEL_FILE,
    bundled_names,
    check_storage,
    error_context,
)

PyTree = Any


@dataclass(frozen=True)
class Run:
    """A trained model, and the run that trained it; a file of one's own says nothing of its run."""

    source: epath.PathLike
    model: PixelRNN
    params: PyTree  # Replicated over a mesh.
    image_format: ImageFormat
    identity: RunIdentity | None = None
    step: int | None = None  # Training steps behind the parameters.

    @property
    def image_model(self) -> ImageModel:
        """The model with its parameters."""
        return ImageModel(self.model, self.params, self.image_format.class_names)

    @property
    def config(self) -> Config:
        """The config of the run."""
        if self.identity is None:
            raise UserError(f"{self.source} holds a model without its data: give --images")
        return self.identity.config

    def open_split(
        self, split: str, *, name: str | None = None, data_dir: str | None = None
    ) -> Split:
        """Opens a split of the data that the run was trained on: see `open_split`.

        `name` and `data_dir` say where they are now. The images are compared with the digest of
        their split.
        """
        given: dict[str, Any] = {"name": name, "data_dir": data_dir}
        moved = {field: value for field, value in given.items() if value is not None}
        config = self.config
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **moved))
        opened = open_split(config, split)
        if opened.format != self.image_format:
            raise UserError(
                f"--split={split} has {opened.format}, the run was trained on {self.image_format}"
            )
        digests, base = self.identity.data if self.identity else {}, split.partition("[")[0]
        for of_run in [base] if base in digests else digests:
            whole = opened if of_run == split else open_split(config, of_run)
            if data.digest(whole) != digests[of_run]:
                raise UserError(
                    f"data.name={config.data.name} does not hold the {of_run} images of the run: "
                    "restore them, give their place by --data_name or --data_dir, or evaluate "
                    "other images with --images"
                )
        return opened


def open_split(config: Config, split: str) -> Split:
    """Opens a split for the model of a run.

    It is "train", "validation" or "test" for `config.data.train_split` and so on, or a split of the
    set itself.
    """
    if split in data.SPLITS:
        split = getattr(config.data, f"{split}_split")
    return Split(data.open_dataset(config.data, split), config.model, config.data)


def open_run(source: epath.PathLike, mesh: Mesh | None = None) -> Run:
    """Opens a trained model by its name, its file or its workdir, which may still be training.

    Of a workdir the parameters, or their moving average if there is one, come from the checkpoint
    with the best validation, or from the newest one without any. They lie on the devices of a mesh,
    by default on one.
    """
    check_storage(source)
    mesh = devices.local_mesh(1) if mesh is None else mesh
    identity = step = None
    if source in bundled_names():
        folder = BUNDLED / str(source)
        identity = RunIdentity.from_dict(json.loads((folder / "identity.json").read_bytes()))
        step = json.loads((folder / "result.json").read_bytes())["step"]
        file: epath.PathLike = folder / MODEL_FILE
    elif weights.is_exported(source):
        file = source
    else:
        return _open_workdir(source, mesh)
    model, params, image_format = weights.read(file)
    params = jax.device_put(params, devices.replicated(mesh))
    return Run(source, model, params, image_format, identity, step)


def _open_workdir(workdir: epath.PathLike, mesh: Mesh) -> Run:
    copy = read_config(workdir)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        identities = {step: checkpoints.identity(step) for step in checkpoints.steps()}
        if len({identity.origin for identity in identities.values()}) != 1:
            kind = "checkpoints of several runs" if identities else "no checkpoint"
            raise UserError(f"--workdir={workdir} has {kind}")
        # The newest identity says where the data are now.
        identity, step = identities[max(identities)], checkpoints.best_step() or max(identities)
        for name, (stored, written) in changed_fields(identity.config, copy).items():
            if is_fixed(name):  # No resume can have changed it.
                raise UserError(
                    f"{workdir}/config.json has {name}={written!r}, but the run was trained with "
                    f"{stored!r}: the file was edited, or the checkpoints are of another run"
                )
        with error_context(workdir):
            weights.check_size(
                identity.config.model, identity.image_format, checkpoints.types(step)
            )
        model = identity.image_format.model(identity.config.model)
        entry = "ema" if identities[step].config.optimizer.ema_decay else "params"
        init = jax.jit(model.init, out_shardings=devices.replicated(mesh))
        template = {entry: jax.eval_shape(init, jax.random.key(0))}
        params = checkpoints.restore(template, step)[entry]
    return Run(workdir, model, params, identity.image_format, identity, step)


def load(path: epath.PathLike) -> ImageModel:
    """Loads a trained model.

    `path` is the name of a model that comes with the package, such as "digits"; a workdir, of which
    the parameters with the best validation are taken; or a file that `ImageModel.save` or the
    command `export` wrote. A folder that has the name of a bundled model is "./digits". All
    processes of a program load a workdir together.

    Raises:
        UserError: There is no trained model, or it is damaged.

    >>> prnn.load("digits").image_shape
    (8, 8, 1)
    """
    return open_run(path).image_model


def from_pretrained(
    repo_id: str, *, revision: str | None = None, token: str | None = None
) -> ImageModel:
    """Loads a model that `ImageModel.push_to_hub` has put on the Hugging Face Hub.

    The repository is "OWNER/NAME", of which `revision` is a branch, tag or commit, by default the
    newest. The access token is by default the one of `hf auth login`.

    Raises:
        UserError: The file in the repository is no model, or is damaged.

    >>> prnn.from_pretrained("somebody/digits").levels
    17
    """
    import huggingface_hub  # The extra `hub` has it.

    return load(huggingface_hub.hf_hub_download(repo_id, HUB_FILE, revision=revision, token=token))


def read_images(source: epath.PathLike, split: str | None = None) -> Images:
    """Reads all images of a path, or of a split of a run.

    Args:
        source: A folder of image files, an image file, or a file of images (.npy, .npz): images as
            they are stored; or the workdir of a run: as its model sees them, binarised for example.
        split: A subfolder, an array of the file, or "train", "validation" or "test" (images
            without such parts are divided, always in the same way); by default all images. A
            run has the splits that `pixel-rnn-jax evaluate` takes; by default "test".

    Raises:
        UserError: There is no such split, or images, labels and condition do not fit one another.

    >>> np.save("images.npy", np.zeros((3, 8, 8), np.uint8))
    >>> prnn.read_images("images.npy").images.shape
    (3, 8, 8, 1)
    """
    if not (epath.Path(source) / "config.json").exists():
        return data.read_files(source, split)
    images = open_run(source).open_split(split or "test")
    return Images(*images.batch(np.arange(len(images))), images.dataset.names())
