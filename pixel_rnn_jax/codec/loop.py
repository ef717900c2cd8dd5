"""The compiled loop over the values of some images, which calls the host for each value."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import io_callback
from jax.experimental.buffer_callback import buffer_callback

from pixel_rnn_jax import terminal
from pixel_rnn_jax.codec.quantise import on_grid
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.generation.decode import Place, decode
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runtime.batching import padded

PyTree = Any
Code = Callable[[np.ndarray, tuple[int, int, int]], np.ndarray]
"""Codes the value at (row, column, channel) of N images, given what `on_grid` makes of their
logits, `[N, K]` (`[N, 1]` for K = 2); returns the values, `[N]`."""

LANES = (1, 8, 64)
"""Numbers of images that are computed side by side; others are padded."""


def each_value(
    model: PixelRNN,
    params: PyTree,
    code: Code,
    count: int,
    condition: np.ndarray | None,
    device: jax.Device,
) -> None:
    """Calls `code` for each value of `count` images in generation order.

    The outputs are computed in float64, the type of the parameters.

    Raises:
        BaseException: What `code` raises, or an interrupt from the keyboard.
    """
    lanes = min(lanes for lanes in LANES if lanes >= count)
    if condition is not None:
        dtype = np.int32 if model.config.num_classes else np.float32
        condition = padded(condition.astype(dtype), lanes)
    total = sum(scale.given.size for scale in model.scales) * model.image_shape[-1]
    places = iter(terminal.progress(_places(model), total, "coding", "value"))
    errors: list[BaseException] = []

    def values_of(marked: np.ndarray) -> np.ndarray:
        values = np.zeros(lanes, np.int32)
        try:
            place = next(places)
            if not errors and place is not None:
                values[:count] = code(marked[:count], place)
        except Exception as error:
            errors.append(error)
        if errors:
            raise _Stop
        return values

    number = next(_numbers) % 2**31
    arguments = params, *jax.device_put((condition, np.int32(number)), device)
    _sessions[number] = values_of
    try:
        # On a CPU the call blocks until the end; in a thread, it lets Ctrl-C be heard before.
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_run, model, lanes, device.platform, arguments)
            try:
                running.result()
            except BaseException as error:
                errors.append(error)  # Ends the loop at its next value.
                raise errors[0] from None
    finally:
        del _sessions[number]


def computed_alike(config: ModelConfig, dtype: str = "float32") -> ModelConfig:
    """Fixes the fields that say how a model is computed, and leaves what it computes."""
    return dataclasses.replace(config, dtype=dtype, remat=False, images_per_lane=1)


def _places(model: PixelRNN) -> Iterator[tuple[int, int, int] | None]:
    """Yields the place in the image of each value of the loop, None where it is given."""
    channels = model.image_shape[-1]
    for scale in model.scales:
        for row, column in np.ndindex(*scale.given.shape):
            for channel in range(channels):
                given = scale.given[row, column]
                yield None if given else (scale.stride * row, scale.stride * column, channel)


class _Stop(Exception):
    """Ends a compiled loop; `each_value` has the reason."""


# JAX logs every exception of a callback; this one is raised again in the caller.
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], _Stop))
)

# A compiled loop serves many calls, in several threads too, so it gets the number of its session as
# an argument, and calls the function that the session has here.
_sessions: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
_numbers = itertools.count()


def _run(model: PixelRNN, lanes: int, platform: str, arguments: PyTree) -> None:
    # Whatever the caller has set for the process.
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        jax.block_until_ready(_compiled(model, lanes, platform)(*arguments))


@functools.lru_cache(maxsize=16)
def _compiled(model: PixelRNN, lanes: int, platform: str) -> Callable[..., Array]:
    """Returns the compiled loop, a function of parameters, condition and number of a session."""
    model = dataclasses.replace(model, config=computed_alike(model.config, "float64"))
    scales, likelihood = model.scales, model.discrete_likelihood()
    call = _call_of_cpu if platform == "cpu" else _call_of_accelerator

    def choose(session: Array, outputs: Array, place: Place) -> tuple[Array, Array]:
        # Each call returns the session to the next one, which keeps them in order.
        return call(session, on_grid(likelihood.logits(outputs)))

    def run(params: PyTree, condition: Array | None, session: Array) -> Array:
        return decode(scales, params, choose, session, lanes=lanes, condition=condition)[0]

    return jax.jit(run)


def _call_of_cpu(session: Array, marked: Array) -> tuple[Array, Array]:
    """Calls the function of a session without a copy, ten times as fast as `io_callback`."""

    def on_host(_: Any, out: Any, session: Any, marked: Any) -> None:
        values = _sessions[int(np.asarray(session))](np.asarray(marked))
        np.asarray(out[0])[...], np.asarray(out[1])[:] = np.asarray(session), values

    shapes = session, jax.ShapeDtypeStruct(marked.shape[:1], jnp.int32)
    return buffer_callback(on_host, shapes, has_side_effect=True)(session, marked)


def _call_of_accelerator(session: Array, marked: Array) -> tuple[Array, Array]:
    def on_host(session: Any, marked: Any) -> tuple[Any, np.ndarray]:
        return session, _sessions[int(session)](np.asarray(marked))

    shapes = session, jax.ShapeDtypeStruct(marked.shape[:1], jnp.int32)
    # (With ordered=True, a call that fails would fail all later ones of the process.)
    return io_callback(on_host, shapes, session, marked)
