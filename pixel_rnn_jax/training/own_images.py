"""Images of the user for a trained model, and the splits of a run, as arrays."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from pixel_rnn_jax import data
from pixel_rnn_jax.data import Batch, Images, Records, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import checks
from pixel_rnn_jax.paths import expanded
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.workdir import read_config, read_image_format
from pixel_rnn_jax.runtime import storage
from pixel_rnn_jax.training.evaluate import open_split_of


def read_images(source: epath.PathLike, split: str | None = None) -> Images:
    """Reads all images of a path, or of a split of a run.

    Args:
        source: A folder of image files, an image file, or an .npy or .npz file, whose images are
            returned as they are stored; or the workdir of a run, whose images are returned as its
            model sees them, binarised for example.
        split: A subfolder, an array of an .npz file, or "train", "validation" or "test" (images
            without such parts are divided, always in the same way); by default all images. Of a
            run, a split as `pixel-rnn-jax evaluate` takes it; by default "test".

    Returns:
        The images, their condition (labels if there are any), and their names.

    Raises:
        UserError: There is no such path or split, the images have several sizes, a file is damaged,
            or labels or a condition do not fit the images.
    """
    source = expanded(source, "source")
    storage.check(source)
    if not (epath.Path(source) / "config.json").exists():
        return data.read_stored(source, split)
    config, image_format = read_config(source), read_image_format(source)
    found = open_split_of(config, image_format, split or "test")
    return Images(*found.batch(np.arange(len(found))), found.record_names())


class OwnImages:
    """Stored images for a model: read some at a time, checked, and refused by their names.

    Levels are taken as they are stored, without binarisation. A density of levels gets them with
    the noise that evaluation adds, and floats as they are.
    """

    def __init__(self, records: Records, model: PixelRNN, class_names: Sequence[str] = ()):
        """Checks all that can be known without reading images.

        Raises:
            UserError: The shape, the type or the condition does not fit the model.
        """
        self._records, self._model, self._class_names = records, model, class_names
        shape, wanted = records.image_shape, model.image_shape
        if shape != wanted:
            takes = f"the model takes {list(wanted)}"
            raise UserError(f"{self._named(0)} has shape {list(shape)}, {takes}")
        self._floats = records.dtype.kind == "f"
        if self._floats and model.config.discrete:
            raise UserError(
                f"{records.name} has values of type {records.dtype}, the model takes integers from "
                f"0 to {model.levels - 1} (unscaled)"
            )
        if records.dtype == bool and model.levels > 2:
            raise UserError(
                f"{self._named(0)} has the values 0 and 1, the model takes integers from 0 to "
                f"{model.levels - 1}: convert it, so that white is {model.levels - 1}"
            )
        self._check_condition()

    def __len__(self) -> int:
        return len(self._records.keys)

    def batch(self, indices: np.ndarray, known: np.ndarray | bool = True) -> Batch:
        """Returns the images `indices`; where they are not `known`, any values will do.

        Raises:
            UserError: A value or a condition does not fit the model, or a file is damaged.
        """
        model, images = self._model, self._records.read(indices)
        if model.levels and not self._floats:
            wrong = (images < 0) | (images >= model.levels)
            self._refuse(images, wrong & known, indices, f"0 to {model.levels - 1}")
        if model.config.discrete:
            images = images.astype(value_dtype(model.levels), copy=False)
        else:
            stored = images
            with np.errstate(over="ignore"):
                images = images.astype(np.float32, copy=False)
            wrong = ~np.isfinite(images)
            self._refuse(stored, wrong & known, indices, "finite numbers of type float32")
            if model.levels and not self._floats:
                images = data.add_noise(images, data.visits_in_evaluation(self._records, indices))
        return Batch(images, self._condition(indices))

    def record_names(self) -> np.ndarray:
        """Returns the names of all images, `[N]` strings: see `Records`."""
        return self._records.record_names()

    def file_names(self) -> tuple[str, ...]:
        """Returns the names of the files of all images; () if they are rows of an array."""
        return tuple(self._records.record_names().tolist()) if self._records.file else ()

    @property
    def mode(self) -> str:
        """Pillow's mode of the files; "" if there are none."""
        return self._records.mode

    def _named(self, index: int) -> str:
        """Returns an image in words, for error messages."""
        name = self._records.record_name(index)
        return name if self._records.file else f"image {name} of {self._records.name}"

    def _refuse(
        self, images: np.ndarray, wrong: np.ndarray, indices: np.ndarray, takes: str
    ) -> None:
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            name = self._named(indices[first[0]])
            raise UserError(f"{name} has the value {images[first]}, the model takes {takes}")

    def _check_condition(self) -> None:
        """Checks that the images have a condition of the form that the model takes."""
        config, records = self._model.config, self._records
        shape, kind = checks.condition_form(config, self._model.image_shape)
        if not kind:
            return
        what = "labels" if config.num_classes else "condition"
        if why := records.unusable.get(what):
            raise UserError(f"the {what} of {records.name} do not fit its images: {why}")
        if (records.labels if config.num_classes else records.condition) is None:
            raise UserError(
                f"the model takes {kind}, but {records.name} has no {what}: give an .npz file with "
                f"an array `{what}`"
            )
        if not config.num_classes and records.condition_shape != shape:
            raise UserError(
                f"the condition of {records.name} has shape {list(records.condition_shape)} for an "
                f"image, the model takes {list(shape)}"
            )

    def _condition(self, indices: np.ndarray) -> np.ndarray | None:
        records, classes = self._records, self._model.config.num_classes
        _, kind = checks.condition_form(self._model.config, self._model.image_shape)
        if not kind:
            return None
        if not classes:
            assert records.condition is not None
            found = records.condition(indices)
            return data.finite(found, indices, f"the condition of {records.name}")
        assert records.labels is not None
        labels = records.labels(indices)
        if records.class_names:  # The model may have other numbers for the same names.
            return checks.numbered(np.array(records.class_names)[labels], self._class_names)
        if (labels >= classes).any():
            first = np.flatnonzero(labels >= classes)[0]
            raise UserError(
                f"{self._named(indices[first])} has the class {labels[first]}, the model takes 0 "
                f"to {classes - 1}"
            )
        return labels.astype(np.int32)
