"""The flags of a verb, and those that several verbs have."""

import functools
from collections.abc import Callable
from typing import Any

from absl import flags
from absl.flags import FlagValues

from pixel_rnn_jax import shipped
from pixel_rnn_jax.config import config_names


class Flags(FlagValues):
    """The flags of one verb: verbs share names, and a process may run several of them.

    `text`, `words`, `integer`, `number` and `switch` define a flag with a name, its help and a
    default; of numbers also with `lower_bound` and `upper_bound`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_gnu_getopt(True)  # Flags may follow a positional argument.

    def _define(
        self, define: Callable[..., Any], name: str, help_: str, default: Any = None, **bounds: Any
    ) -> None:
        define(name, default, help_, flag_values=self, **bounds)

    words = functools.partialmethod(_define, flags.DEFINE_multi_string)
    text = functools.partialmethod(_define, flags.DEFINE_string)
    integer = functools.partialmethod(_define, flags.DEFINE_integer)
    number = functools.partialmethod(_define, flags.DEFINE_float)
    switch = functools.partialmethod(_define, flags.DEFINE_bool, default=False)


def config_flag(values: Flags) -> None:
    """Defines --config as the name of a config."""
    values.text(
        "config",
        f"A config file, or the name of one that comes with the package "
        f"({', '.join(config_names())}), with its argument after a colon: mnist:row_lstm. "
        "--config.GROUP.FIELD=VALUE overrides a field.",
    )


def workdir_flag(values: Flags, *, new: bool) -> None:
    """Defines --workdir, of a run that is there or that may be `new`."""
    more = (
        " A run that is there already goes on, with its own config if there is no --config. "
        "Default: runs/CONFIG, or runs/CONFIG-VARIANT for --config=CONFIG:VARIANT."
    )
    help_ = "Directory of a training run, or gs://BUCKET/FOLDER."
    file = " Where a model is enough, also a file that `export` wrote."
    values.text("workdir", help_ + (more if new else file))


def model_flag(values: Flags) -> None:
    """Defines --model."""
    names = ", ".join(shipped.names())
    values.text("model", f"Instead of --workdir, a model that comes with the package: {names}.")


def workdirs_flag(values: Flags) -> None:
    """Defines --workdir, of one run or several."""
    values.words(
        "workdir",
        "Directory of a training run, or gs://BUCKET/FOLDER. More may follow, each after another "
        "--workdir or as a word of its own: --workdir=runs/a runs/b.",
    )


def compilation_flag(values: Flags) -> None:
    """Defines --compilation_cache."""
    values.text(
        "compilation_cache",
        "Folder of compiled programs, so that a second start compiles nothing; "
        "--compilation_cache= keeps none. Default: JAX_COMPILATION_CACHE_DIR, or "
        "pixel-rnn-jax in the user's cache folder.",
    )


def quiet_flag(values: Flags) -> None:
    """Defines --quiet."""
    values.switch("quiet", "Prints the results and errors only: no progress, no remarks.")


def json_flag(values: Flags) -> None:
    """Defines --json."""
    values.switch("json", "Prints the results as one JSON object, with all their digits.")


def process_flags(values: Flags) -> None:
    """Defines the flags by which several processes join."""
    values.switch(
        "distributed",
        "Joins the processes that the cluster has started: Cloud TPU, SLURM, Open MPI, Kubernetes. "
        "Default: where SLURM, Open MPI or a TPU's environment names several; --nodistributed "
        "never.",
        default=None,
    )
    values.text(
        "coordinator",
        "HOST:PORT of the first process, the same for all: joins the processes by hand.",
    )
    values.integer("num_processes", "With --coordinator: the number of processes.")
    values.integer("process_id", "With --coordinator: which one this is, from 0 on.")


def file_flag(values: Flags) -> None:
    """Defines --file, the first positional argument."""
    values.text("file", "The compressed file; --file= may be left out.")


def images_flag(values: Flags, verb: str, more: str) -> None:
    """Defines --images."""
    values.text(
        "images",
        f"Images to {verb}: a folder, an image file, or an .npy or .npz file (for a model with a "
        f"condition an .npz file with an array `labels` or `condition`). {more}",
    )


def part_flag(values: Flags, default: str = "Default: all.") -> None:
    """Defines --split of --images."""
    values.text(
        "split",
        "Which part of --images: a subfolder, an array of an .npz file, or train, validation or "
        "test. Images without such parts are divided 80/10/10 percent, always in the same way. "
        "'test[:300]' takes a part of a split. " + default,
    )


def data_flag(values: Flags) -> None:
    """Defines --data."""
    values.text(
        "data",
        "Where the data set of the run is now, if it has moved: a folder, or an .npy or .npz file; "
        "or the folder of TFDS that it is in.",
    )


def condition_flag(values: Flags, more: str) -> None:
    """Defines --condition, of a model of vectors or maps."""
    values.text(
        "condition",
        "For a model with model.condition_vector or model.condition_map: an .npy file of the "
        f"vectors [N, D] or maps [N, H, W, D], or an .npz file with an array `condition`. {more}",
    )


def out_flag(values: Flags, default: str) -> None:
    """Defines --out of images."""
    values.text(
        "out",
        "Where the images go: a .png file for a picture to look at, an .npz file for an array "
        "`images`, or a new folder for one PNG file each, which hold the values unscaled.",
        default,
    )


def seed_flag(values: Flags) -> None:
    """Defines --seed."""
    help_ = "Seed of the random draws: the same one gives the same images."
    values.integer("seed", help_, 0, lower_bound=0, upper_bound=2**32 - 1)
