"""The logits of the values of some images: by whole maps, or by a loop that asks for each value."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.buffer_callback import buffer_callback

from pixel_rnn_jax.codec.quantise import MARGIN, on_grid
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.generation.values import Place, for_each_value
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import tuning
from pixel_rnn_jax.system.batching import padded
from pixel_rnn_jax.system.errors import UserError

PyTree = Any
Code = Callable[[np.ndarray, tuple[int, int, int], int], np.ndarray]
"""(logits by `on_grid` `[N, K]`, (row, column, channel), size of a digit) to the digits, `[N]`."""

PLACES = 4096
"""Known digits that are coded at a time."""

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

    def of_known(
        self, size: tuple[int, int], values: np.ndarray, condition: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields logits by `on_grid` `[N, K]`, with the digits `[N]`, of known images of one size.

        They come in the order of `each_value`, many places at a time.
        """
        model, count = self.model.sized(*size), len(values)
        batch = max(1, tuning.CPU_PIXELS // math.prod(size))
        batch *= tuning.CPU_IMAGES_PER_SCAN if model.recurrent else 1
        inputs = values.astype(np.int32), self._typed(condition)

        def maps_from(start: int) -> list[list[np.ndarray]]:
            some = jax.tree.map(lambda x: padded(x[start : start + batch], batch), inputs)
            with jax.enable_x64(True), jax.default_matmul_precision("highest"):
                maps = _compiled_maps(model)(self._float64, *jax.device_put(some, self._device))
            return jax.device_get(maps)

        with ThreadPoolExecutor(tuning.cores()) as pool:
            maps = list(zip(*pool.map(maps_from, range(0, count, batch)), strict=True))
        units = model.discrete_likelihood().digit_sizes
        base = 16 if len(units) > 1 else model.levels
        for scale, batches in zip(model.scales, maps, strict=True):
            levels = scale.subsample(inputs[0])[:, ~scale.copied].reshape(count, -1).T
            alike = len({digit.shape[-1] for digit in batches[0]}) == 1
            most = max(1, PLACES // count) if alike else 1
            for start in range(0, len(levels), most):
                places = slice(start, start + most)
                digits = [levels[places] // unit % base for unit in units]
                logits = [
                    np.concatenate([digit[places] for digit in batch], axis=1)[:, :count]
                    for batch in zip(*batches, strict=True)
                ]
                if alike:  # At a place, the first digits of all lanes come first.
                    digits, logits = [np.stack(digits, 1)], [np.stack(logits, 1)]
                for of_digit, values in zip(logits, digits, strict=True):
                    yield of_digit.reshape(-1, of_digit.shape[-1]), values.ravel()

    def _typed(self, condition: np.ndarray | None) -> np.ndarray | None:
        if condition is None:
            return None
        return condition.astype(np.int32 if self.model.config.condition.classes else np.float32)

    def each_value(
        self, size: tuple[int, int], count: int, condition: np.ndarray | None, code: Code
    ) -> None:
        """Calls `code` for each digit of `count` images of one size in generation order."""
        # A power of two, so that little is compiled; the lanes that are left are padded.
        model, lanes = self.model.sized(*size), 1 << (count - 1).bit_length()
        condition = jax.tree.map(lambda x: padded(x, lanes), self._typed(condition))
        places = [  # In the whole image; None where the scale before gives the value.
            None if scale.copied[row, col] else (scale.stride * row, scale.stride * col, channel)
            for scale in model.scales
            for row, col, channel in np.ndindex(*scale.copied.shape, model.image_shape[-1])
        ]
        remaining = itertools.product(places, model.discrete_likelihood().digit_sizes)
        errors: list[Exception] = []

        def values_of(doubled: np.ndarray) -> np.ndarray:
            if errors:
                raise errors[0]
            values = np.zeros(lanes, np.int32)
            try:
                place, size = next(remaining)
                if place is not None:
                    values[:count] = code(doubled[:count], place, size)
            except Exception as error:
                errors.append(error)
                raise
            return values

        number = next(_numbers)
        arguments = jax.device_put((condition, np.int32(number)), self._device)
        _calls[number] = values_of
        try:
            # Whatever the caller has set for the process.
            with jax.enable_x64(True), jax.default_matmul_precision("highest"):
                jax.block_until_ready(_compiled(model, lanes)(self._float64, *arguments))
        except Exception as error:
            raise (errors or [error])[0] from None
        finally:
            del _calls[number]


def canonical_config(config: ModelConfig, **dtype: Any) -> ModelConfig:
    """Fixes the fields that say how a model is computed, and leaves what it computes."""
    fixed: dict[str, Any] = dict(dtype="float32", dropout=0.0, remat=False, images_per_lane=1)
    return dataclasses.replace(config, **fixed | dtype)


def _exact(model: PixelRNN) -> PixelRNN:
    return dataclasses.replace(model, config=canonical_config(model.config, dtype="float64"))


@functools.lru_cache(maxsize=16)
def _compiled_maps(model: PixelRNN) -> Callable[..., list[list[Array]]]:
    """Returns a function of parameters, images `[L, H, W, C]` and condition.

    It gives the logits of each digit of each scale by `on_grid`, `[P, L, K]` for P places.
    """
    model = _exact(model)
    likelihood = model.discrete_likelihood()

    def run(params: PyTree, images: Array, condition: Array | None) -> list[list[Array]]:
        scales = []
        for scale in model.scales:
            outputs = scale.bind(params)(*scale.inputs(images, condition))
            outputs, levels = (x[:, ~scale.copied] for x in (outputs, scale.subsample(images)))
            before, digits = jnp.zeros_like(levels), list[Array]()
            for unit in likelihood.digit_sizes:
                logits = likelihood.digit_logits(outputs, before, unit)
                doubled = on_grid(logits, MARGIN)
                digits.append(doubled.reshape(len(images), -1, doubled.shape[-1]).swapaxes(0, 1))
                before = levels // unit * unit
            scales.append(digits)
        return scales

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _compiled(model: PixelRNN, lanes: int) -> Callable[..., Array]:
    """Returns the compiled loop, a function of parameters, condition and number of a call."""
    model = _exact(model)
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
            number, digits = on_device(number, on_grid(logits, MARGIN))
            level = level + size * digits
        return number, level

    def run(params: PyTree, condition: Array | None, number: Array) -> Array:
        return for_each_value(scales, params, choose, number, lanes=lanes, condition=condition)[0]

    return jax.jit(run)
