"""Trained models, opened by the name of a bundled model, a file or a workdir."""

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
from pixel_rnn_jax.data import Images, Split
from pixel_rnn_jax.image_model import HUB_FILE, ImageModel
from pixel_rnn_jax.runs.config import Config, changed_fields
from pixel_rnn_jax.runs.workdir import Checkpoints, RunIdentity, is_fixed, read_config
from pixel_rnn_jax.system import devices, files
from pixel_rnn_jax.system.errors import UserError


@dataclass(frozen=True)
class Run:
    """A trained model with its run; `identity` and `step` are None for an exported file."""

    source: epath.PathLike
    image_model: ImageModel  # Its parameters are replicated over a mesh.
    identity: RunIdentity | None = None
    step: int | None = None  # Training steps behind the parameters.

    def read_split(
        self, split: str, *, name: str | None = None, data_dir: str | None = None
    ) -> Split:
        """Opens a split of the data of the run, as `open_split`, and compares it with its digest.

        `name` and `data_dir` say where the data are now.
        """
        if self.identity is None:
            raise UserError(f"{self.source} holds a model without its data: give --images")
        image_format, digests = self.identity.image_format, self.identity.data
        moves: dict[str, Any] = {"name": name, "data_dir": data_dir}
        given = {field: value for field, value in moves.items() if value is not None}
        moved = dataclasses.replace(self.identity.config.data, **given)
        config = dataclasses.replace(self.identity.config, data=moved)
        opened, base = open_split(config, split), split.partition("[")[0]
        for name_of_run in [base] if base in digests else digests:
            whole = opened if name_of_run == split else open_split(config, name_of_run)
            if opened.format != image_format or data.digest(whole) != digests[name_of_run]:
                what = f"data.name={config.data.name} does not hold the {name_of_run} images"
                way = "restore them, give --data_name or --data_dir, or other --images"
                raise UserError(f"{what} of the run ({image_format}): {way}")
        return opened


def open_split(config: Config, split: str) -> Split:
    """Opens "train", "validation" or "test" of a config, or any other split of its data set."""
    if split in data.SPLITS:
        split = getattr(config.data, f"{split}_split")
    return Split(data.open_dataset(config.data, split), config.model, config.data)


def open_run(source: epath.PathLike, mesh: Mesh | None = None) -> Run:
    """Opens a trained model by its name, its file or its workdir, which may still be training.

    A workdir gives the parameters with the best validation, or the newest ones without any. They
    are replicated over a mesh, by default of one device.
    """
    files.check_storage(source)
    mesh = devices.local_mesh(1) if mesh is None else mesh
    identity = step = None
    if source in files.bundled_names():
        folder = files.BUNDLED / str(source)
        identity = RunIdentity.from_dict(json.loads((folder / "identity.json").read_bytes()))
        step = json.loads((folder / "result.json").read_bytes())["step"]
        file: epath.PathLike = folder / files.MODEL_FILE
    elif weights.is_exported(source):
        file = source
    else:
        return _open_workdir(source, mesh)
    model, params, image_format = weights.read(file)
    params = jax.device_put(params, devices.replicated(mesh))
    return Run(source, ImageModel(model, params, image_format.class_names), identity, step)


def _open_workdir(workdir: epath.PathLike, mesh: Mesh) -> Run:
    copy = read_config(workdir)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        identities = {step: checkpoints.identity(step) for step in checkpoints.steps()}
        if len({identity.origin for identity in identities.values()}) != 1:
            found = "checkpoints of several runs" if identities else "no checkpoint"
            raise UserError(f"--workdir={workdir} has {found}")
        # The newest identity says where the data are now.
        identity, step = identities[max(identities)], checkpoints.best_step() or max(identities)
        for name, (stored, written) in changed_fields(identity.config, copy).items():
            if is_fixed(name):  # No resume can have changed it.
                found = f"{workdir}/config.json has {name}={written!r}"
                raise UserError(f"{found}, the checkpoints have {stored!r}")
        config, image_format = identity.config.model, identity.image_format
        with files.error_context(workdir):
            weights.check_size(config, image_format, checkpoints.sealed(step)["types"])
        model = image_format.model(config)
        entry = "ema" if identities[step].config.optimizer.ema_decay else "params"
        init = jax.jit(model.init, out_shardings=devices.replicated(mesh))
        template = {entry: jax.eval_shape(init, jax.random.key(0))}
        params = checkpoints.restore(template, step)[entry]
    return Run(workdir, ImageModel(model, params, image_format.class_names), identity, step)


def load(path: epath.PathLike) -> ImageModel:
    """Loads a trained model.

    `path` is the name of a bundled model, such as "digits" (a folder of that name is "./digits");
    a workdir, whose parameters with the best validation are taken; or a file that `ImageModel.save`
    or the command `export` wrote. All processes of a program load a workdir together. Raises a
    `UserError` if there is no trained model, or it is damaged.

    >>> prnn.load("digits").image_shape
    (8, 8, 1)
    """
    return open_run(path).image_model


def from_pretrained(
    repo_id: str, *, revision: str | None = None, token: str | None = None
) -> ImageModel:
    """Loads a model that `ImageModel.push_to_hub` has put on the Hugging Face Hub.

    `revision` is a branch, tag or commit; `hf auth login` gives the default token. Raises a
    `UserError` if the file in the repository is no model, or is damaged.

    >>> prnn.from_pretrained("somebody/digits").levels
    17
    """
    import huggingface_hub  # The extra `hub` has it.

    return load(huggingface_hub.hf_hub_download(repo_id, HUB_FILE, revision=revision, token=token))


def read_images(source: epath.PathLike, split: str | None = None) -> Images:
    """Reads images as they are stored, or as the model of a run sees them.

    `source` is a folder of image files, an image file, a file of images (.npy, .npz), or a workdir.
    `split` is a subfolder, an array of the file, or "train", "validation" or "test" (images without
    such parts are divided, always in the same way); by default all images. A run has the splits
    that `pixel-rnn-jax evaluate` takes; by default "test". Raises a `UserError` if there is no such
    split, or images, labels and condition do not fit one another.

    >>> np.save("images.npy", np.zeros((3, 8, 8), np.uint8))
    >>> prnn.read_images("images.npy").images.shape
    (3, 8, 8, 1)
    """
    if not (epath.Path(source) / "config.json").exists():
        return data.read_files(source, split)
    images = open_run(source).read_split(split or "test")
    return Images(*images.batch(np.arange(len(images))), images.dataset.names())
