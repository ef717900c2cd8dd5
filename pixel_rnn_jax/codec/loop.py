"""The compiled loop over the values of some images, which calls the host for each value."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.buffer_callback import buffer_callback

from pixel_rnn_jax.codec.quantise import on_grid
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.generation.values import Place, for_each_value
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import terminal
from pixel_rnn_jax.system.batching import padded
from pixel_rnn_jax.system.errors import UserError

PyTree = Any
Code = Callable[[np.ndarray, tuple[int, int, int], int], np.ndarray]
"""(logits by `on_grid` `[N, K]`, (row, column, channel), size of a digit) to the digits, `[N]`."""

# A compiled loop serves many calls, in several threads too: it gets the number of a call as an
# argument, and passes logits to the function that the call has here.
_calls: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
_numbers = itertools.count()


class Loop:
    """The distributions of one model, value by value, on the CPU in float64."""

    def __init__(self, model: PixelRNN, params: PyTree):
        model.discrete_likelihood()
        if model.levels > 2**16:
            raise UserError(f"the codec takes up to 65,536 levels, the model has {model.levels:,}")
        self.model = model
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
        self._device = jax.local_devices(backend="cpu")[0]
        with jax.enable_x64(True):
            self._float64 = jax.device_put(jax.tree.map(np.float64, self.params), self._device)

    def each_value(
        self, size: tuple[int, int], count: int, condition: np.ndarray | None, code: Code
    ) -> None:
        """Calls `code` for each digit of `count` images of one size in generation order."""
        # A power of two, so that little is compiled; the lanes that are left are padded.
        model, lanes = self.model.sized(*size), 1 << (count - 1).bit_length()
        if condition is not None:
            dtype = np.int32 if model.config.condition.classes else np.float32
            condition = padded(condition.astype(dtype), lanes)
        places = [  # In the whole image; None where the scale before gives the value.
            None if scale.copied[row, col] else (scale.stride * row, scale.stride * col, channel)
            for scale in model.scales
            for row, col, channel in np.ndindex(*scale.copied.shape, model.image_shape[-1])
        ]
        progress: Any = terminal.progress((), len(places), "coding", "value")
        sizes = model.discrete_likelihood().digit_sizes
        # Not the bar itself: some replace its iterator, which then fails in the loop's thread.
        remaining = itertools.product(places, sizes)
        errors: list[BaseException] = []

        def values_of(doubled: np.ndarray) -> np.ndarray:
            if errors:
                raise errors[0]
            values = np.zeros(lanes, np.int32)
            try:
                place, size = next(remaining)
                progress.update(size == 1)
                if place is not None:
                    values[:count] = code(doubled[:count], place, size)
            except Exception as error:
                errors.append(error)
                raise
            return values

        number = next(_numbers)
        arguments = jax.device_put((condition, np.int32(number)), self._device)

        def run() -> None:
            # Whatever the caller has set for the process.
            with jax.enable_x64(True), jax.default_matmul_precision("highest"):
                jax.block_until_ready(_compiled(model, lanes)(self._float64, *arguments))

        _calls[number] = values_of
        try:
            # The call blocks until the end; in a thread, it lets Ctrl-C be heard before.
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(run)
                try:
                    running.result()
                except BaseException as error:
                    errors.append(error)  # Ends the loop at its next value.
                    raise errors[0] from None
        finally:
            del _calls[number]
            progress.close()


def canonical_config(config: ModelConfig, **dtype: Any) -> ModelConfig:
    """Fixes the fields that say how a model is computed, and leaves what it computes."""
    fixed: dict[str, Any] = dict(dtype="float32", dropout=0.0, remat=False, images_per_lane=1)
    return dataclasses.replace(config, **fixed | dtype)


@functools.lru_cache(maxsize=16)
def _compiled(model: PixelRNN, lanes: int) -> Callable[..., Array]:
    """Returns the compiled loop, a function of parameters, condition and number of a call."""
    model = dataclasses.replace(model, config=canonical_config(model.config, dtype="float64"))
    scales, likelihood = model.scales, model.discrete_likelihood()

    def on_host(_: Any, out: Any, number: Any, doubled: Any) -> None:
        values = _calls[int(np.asarray(number))](np.asarray(doubled))
        np.asarray(out[0])[...], np.asarray(out[1])[:] = np.asarray(number), values

    def choose(number: Array, outputs: Array, place: Place) -> tuple[Array, Array]:
        # Without a copy, ten times as fast as `io_callback`. Each call returns the number to the
        # next one, which keeps them in order.
        values = jax.ShapeDtypeStruct((lanes,), jnp.int32)
        on_device = buffer_callback(on_host, (number, values), has_side_effect=True)
        level = jnp.zeros(lanes, jnp.int32)
        for size in likelihood.digit_sizes:
            logits = likelihood.digit_logits(outputs, level, size)
            number, digits = on_device(number, on_grid(logits))
            level = level + size * digits
        return number, level

    def run(params: PyTree, condition: Array | None, number: Array) -> Array:
        return for_each_value(scales, params, choose, number, lanes=lanes, condition=condition)[0]

    return jax.jit(run)
