"""What the workdir of a run tells of it, whether it is complete or still training."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeGuard

from etils import epath

from pixel_rnn_jax import image_model
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.errors import UserError, is_out_of_memory
from pixel_rnn_jax.runs import workdir as workdir_lib
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.records import picture_paths, read_records
from pixel_rnn_jax.runtime import devices, storage
from pixel_rnn_jax.training.evaluate import open_split
from pixel_rnn_jax.training.pixel_map import PixelMap, draw_pixel_map

PNG_BEGINS, PNG_ENDS = b"\x89PNG\r\n", b"IEND\xaeB`\x82"


class Likelihood(NamedTuple):
    """A mean over images, in nats for each image and in bits/dim; None where it is not known."""

    nats: float
    standard_error: float | None = None
    bits_per_dim: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any], prefix: str = "") -> Self:
        """Takes it from a record or a part of `result.json`.

        Raises:
            KeyError, TypeError, ValueError: There are no such numbers.
        """
        nats, *rest = (values.get(prefix + name) for name in cls._fields)
        if nats is None:
            raise KeyError(f"{prefix}nats")
        return cls(float(nats), *(None if value is None else float(value) for value in rest))


@dataclass(frozen=True)
class Result:
    """What `result.json` holds: the figures of a complete run.

    Attributes:
        step: The step of the parameters that were evaluated.
        steps: Steps that the run has made.
        test: On the test split.
        images: How many images that has.
        baseline: Independent pixels, on the same images.
        seconds: How long the last command of the run took, and how many steps were made before it.
        resumed_from: See `seconds`.
        finished: When it ended.
        versions: Of Python and of packages.
        hardware: What it ran on.
    """

    step: int
    steps: int
    test: Likelihood
    images: int
    baseline: Likelihood
    seconds: float
    resumed_from: int
    finished: str
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Reads what `training.result` wrote.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: It is damaged.
        """
        values = json.loads(text)
        of_all = (values[name].items() for name in ("versions", "hardware"))
        versions, hardware = ({name: str(value) for name, value in items} for items in of_all)
        return cls(
            int(values["step"]),
            int(values["steps"]),
            Likelihood.of(values["test"]),
            int(values["test"]["images"]),
            Likelihood.of(values["independent_pixels"]),
            float(values["seconds"]),
            int(values["resumed_from"]),
            str(values["finished"]),
            versions,
            hardware,
        )


class Picture(NamedTuple):
    """A PNG file that training has drawn after a step."""

    content: bytes
    step: int


@dataclass(frozen=True)
class RunFacts:
    """A run as a page shows it.

    Attributes:
        workdir: As the user named it.
        config: Its config.
        image_format: The format of its images.
        records: What `metrics.jsonl` holds, in order.
        result: The figures of a complete run; None of one that is not.
        step: The newest step of which there is a record or a checkpoint.
        pictures: The newest "samples" and "completions", those that there are.
        pixel_map: Some validation images beside their nats; None if there is none.
        why_no_map: A sentence about why not.
    """

    workdir: str
    config: Config
    image_format: ImageFormat
    records: list[dict[str, float]]
    result: Result | None
    step: int
    pictures: dict[str, Picture]
    pixel_map: PixelMap | None
    why_no_map: str

    def points(self, name: str, by: str = "step") -> list[tuple[float, float]]:
        """Returns (when, value) of the records that have both; `by` is "step" or "seconds"."""
        pairs = ((record.get(by), record.get(name)) for record in self.records)
        return [(x, y) for x, y in pairs if _is_finite(x) and _is_finite(y)]

    @property
    def best_validation(self) -> tuple[int, Likelihood] | None:
        """The step with the lowest validation so far, and that; None if there was none."""
        points = self.points("validation/nats")
        if not points:
            return None
        step, _ = min(points, key=lambda point: point[1])
        record = next(r for r in self.records if r["step"] == step and "validation/nats" in r)
        return int(step), Likelihood.of(record, "validation/")

    @property
    def seconds(self) -> float | None:
        """How long it has trained; None if that is not known."""
        if self.records and _is_finite(seconds := self.records[-1].get("seconds")):
            return seconds
        in_one_go = self.result is not None and not self.result.resumed_from
        return self.result.seconds if self.result and in_one_go else None


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def read_run(workdir: str, *, pixel_map: bool = True) -> RunFacts:
    """Reads what a workdir holds; a training may be writing to it.

    The map, which takes some time, is of validation images. Where it cannot be drawn, because the
    data are elsewhere, there is no checkpoint yet or a training has the memory of the device, the
    reason stands in its place.

    Raises:
        UserError: There is no run in the workdir, or a file of it is damaged or cannot be read.
    """
    path = epath.Path(workdir)
    config, image_format = workdir_lib.read_config(path), workdir_lib.read_image_format(path)
    try:
        records = read_records(path) if (path / "metrics.jsonl").exists() else []
        result, pictures = _read_result(path / "result.json"), _newest_pictures(path)
        newest = workdir_lib.newest_step(path) or 0
    except storage.errors() as error:
        raise UserError(f"{workdir} cannot be read: {storage.reason(error)}") from error
    step = max([newest, *(int(record["step"]) for record in records)])
    drawn, why = None, "It was left out."
    if pixel_map:
        try:
            run = workdir_lib.open_run(path, devices.local_mesh(1))
            drawn = draw_pixel_map(image_model.of_run(run), open_split(run, "validation"))
        except UserError as error:
            why = f"There is none: {error}."
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            why = "There is none: the device has no memory left, which a training may have taken."
    return RunFacts(str(workdir), config, image_format, records, result, step, pictures, drawn, why)


def _read_result(path: epath.Path) -> Result | None:
    """Reads `result.json`, which a run that is not complete does not have."""
    if not path.exists():
        return None
    try:
        return Result.from_json(path.read_bytes())
    except (*storage.DAMAGED_JSON, OverflowError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}): delete it and give the command of the training again, "
            "which writes it anew"
        ) from error


def _newest_pictures(workdir: epath.Path) -> dict[str, Picture]:
    """Returns the newest complete picture of each kind; training may be writing one."""
    found: dict[str, Picture] = {}
    for path, name, step in sorted(picture_paths(workdir), key=lambda picture: -picture[2]):
        if name in found:
            continue
        content = path.read_bytes()
        if content.startswith(PNG_BEGINS) and content.endswith(PNG_ENDS):
            found[name] = Picture(content, step)
    return found
