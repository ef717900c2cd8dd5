"""Flags that several verbs have."""

import functools

from absl import flags
from absl.flags import FlagValues

from pixel_rnn_jax.runtime import processes


def process_flags(values: FlagValues) -> None:
    """Defines the flags by which several processes join."""
    flags.DEFINE_bool(
        "distributed",
        None,
        "Joins the processes that the cluster has started: Cloud TPU, SLURM, Open MPI, Kubernetes. "
        "Default: where SLURM, Open MPI or a TPU's environment names several; --nodistributed "
        "never.",
        flag_values=values,
    )
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    text("coordinator", None, "Joins the processes that were given the same HOST:PORT, where the "
         "first one waits.")  # fmt: skip
    integer("num_processes", None, "With --coordinator: how many there are.")
    integer("process_id", None, "With --coordinator: which one this is, from 0 on.")


def join(values: FlagValues) -> None:
    """Joins the processes that `process_flags` name."""
    processes.join(
        values.coordinator, values.num_processes, values.process_id, cluster=values.distributed
    )


def out_flag(values: FlagValues, default: str) -> None:
    """Defines --out of images."""
    flags.DEFINE_string(
        "out",
        default,
        "Where the images go: a .png file for a picture to look at, an .npz file for an array "
        "`images`, or a new folder for a PNG file each, which hold the values unscaled.",
        flag_values=values,
    )


def seed_flag(values: FlagValues) -> None:
    """Defines --seed."""
    flags.DEFINE_integer(
        "seed",
        0,
        "Of the random draws; the same seed gives the same images.",
        lower_bound=0,
        upper_bound=2**32 - 1,
        flag_values=values,
    )
