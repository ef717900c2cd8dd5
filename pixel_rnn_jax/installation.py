"""What is wrong with an installation, and the command that repairs it."""

import importlib.metadata
import logging
import re

from pixel_rnn_jax.errors import UserError

DEVICES = {"NVIDIA GPU": "cuda", "Google TPU": "tpu"}
"""What JAX may find on a machine without support for it, and the extra that has it."""


def check() -> None:
    """Checks that all required packages are there, and neither too old nor too new.

    Raises:
        UserError: Some are not.
    """
    try:
        requirements = importlib.metadata.requires("pixel-rnn-jax") or []
    except importlib.metadata.PackageNotFoundError:  # A checkout that is not installed.
        return
    required = [each for each in requirements if "extra ==" not in each]
    wrong = {each: problem for each in required if (problem := _problem(each))}
    if wrong:
        packages = " ".join(f"'{each}'" for each in wrong)
        raise UserError(
            f"the installation does not fit ({'; '.join(wrong.values())}): pip install {packages}"
        )


def _problem(requirement: str) -> str:
    """Returns what is wrong with a requirement such as "flax>=0.12.8"; "" if nothing is."""
    name = re.findall(r"^[\w.-]+", requirement)[0]
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing"
    for sign, bound in re.findall(r"(>=|<)([\d.]+)", requirement):
        if (_numbers(found) < _numbers(bound)) == (sign == ">="):
            return f"{name} {found} is too {'old' if sign == '>=' else 'new'}"
    return ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", re.split("[a-z+]", version)[0])]


def what_to_say(error: Exception) -> str:
    """Returns a sentence about an import that failed for the installation; "" for other errors."""
    if not isinstance(error, ImportError):
        return ""
    try:
        check()
    except UserError as found:
        return str(found)
    return ""


def name_extras() -> None:
    """Adds to JAX's warning of a device that it was installed without what to install."""
    logging.getLogger("jax._src.xla_bridge").addFilter(_name_extra)


def _name_extra(record: logging.LogRecord) -> bool:
    for device, extra in DEVICES.items():
        if f"{device} may be present" in str(record.msg):
            record.msg += f" To use it: pip install 'pixel-rnn-jax[{extra}]'"
    return True
