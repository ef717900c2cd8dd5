"""The one loop over the values of images, in generation order: scale, row, column, channel.

Sampling, completion and the codec run this loop, each with its own `choose`, from the network's
outputs for one value of every lane to the values. A lane is an image that is decided beside others:
a sample, a particle, an image of a compressed block.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from pixel_rnn_jax.model import Scale, kernels

PyTree = Any


class Place(NamedTuple):
    """The place of a value: its scale, and row, column and channel in the image of the scale.

    If `copied`, the value is the smaller scale's, and the result of `choose` is not used. Scale
    and channel are known at compile time. `remaining` is as in `Lanes`.
    """

    scale: int
    row: Array
    column: Array
    channel: int
    copied: ArrayLike
    remaining: Array | None


class Lanes(NamedTuple):
    """The loop's carry from pixel to pixel; every array has the lanes as its first axis."""

    image: Array  # [L, H, W, C], of this scale so far.
    state: PyTree  # Layer states after the last pixel.
    features: Array | None  # [L, H, W, h], the condition of the body.
    context: PyTree  # The body's terms of the features in this row.
    remaining: Array | None  # [L], `model.total` less the values so far.


Choose = Callable[[Any, Array, Place], tuple[Any, Array]]
EndPixel = Callable[[Any, Lanes, Place], tuple[Any, Lanes]]


def for_each_value(
    scales: Sequence[Scale],
    params: PyTree,
    choose: Choose,
    carry: Any,
    *,
    lanes: int,
    condition: Array | None = None,
    end_pixel: EndPixel | None = None,
) -> tuple[Array, Any]:
    """Decides every value of L images, `lanes`, each given all values before it; traceable.

    `choose` maps (carry, outputs `[L, Q]`, place) to (carry, values `[L]`). After each pixel
    `end_pixel` maps (carry, lanes, place of the last channel) to (carry, lanes); it may replace
    whole lanes. The condition is `[L, ...]`. Returns the images `[L, H, W, C]` and the last carry.
    """
    image = None
    last = scales[-1].network
    dtype = jnp.int32 if last.likelihood.discrete else last.param_dtype
    for number, scale in enumerate(scales):
        network = scale.bind(params)
        features = scale.embed_condition(params, condition, image)
        own = jnp.zeros((lanes, *scale.network.image_shape), dtype)
        if image is not None:
            own = own.at[:, :: scale.network.ratio, :: scale.network.ratio].set(image)
        state, context = network.init_state(lanes), network.context(features, 0)
        total = network.config.total
        remaining = jnp.full(lanes, total, jnp.int32) if total else None
        start = Lanes(own, state, features, context, remaining)
        start, carry = kernels.varying_alike((start, carry), (params, start, carry))
        image, carry = _for_each_value_of(number, scale, params, choose, carry, start, end_pixel)
    assert image is not None
    return image, carry


def _for_each_value_of(
    number: int,
    scale: Scale,
    params: PyTree,
    choose: Choose,
    carry: Any,
    start: Lanes,
    end_pixel: EndPixel | None,
) -> tuple[Array, Any]:
    height, width, channels = scale.network.image_shape
    all_copied = jnp.asarray(scale.copied)

    def one_pixel(loop: tuple[Lanes, Any], position: tuple[Array, Array]) -> tuple[Any, None]:
        (lanes, carry), (row, column) = loop, position
        network = scale.bind(params)
        copied: ArrayLike = all_copied[row, column] if scale.copied.any() else False
        pixel = lanes.image[:, row, column]
        state, remaining = lanes.state, lanes.remaining
        for channel in range(channels):
            # Each step is from the same state; the state of the last one is kept.
            if channel < network.mask_groups:
                of_pixel, state = network.step(lanes.state, pixel, position, lanes.context)
            outputs = network.split_channels(of_pixel, pixel)[:, channel]
            if network.total is not None and remaining is not None:
                num_after = ((height - row) * width - column) * channels - channel - 1
                outputs = network.total.restrict(outputs, remaining, num_after)
            place = Place(number, row, column, channel, copied, remaining)
            carry, values = choose(carry, outputs, place)
            values = jnp.where(copied, pixel[:, channel], values.astype(pixel.dtype))
            pixel = pixel.at[:, channel].set(values)
            remaining = None if remaining is None else remaining - values
        state = network.end_pixel(state, pixel, position)
        image = lanes.image.at[:, row, column].set(pixel)
        lanes = lanes._replace(state=state, image=image, remaining=remaining)
        if end_pixel is not None:
            carry, lanes = end_pixel(carry, lanes, place)
        return (lanes, carry), None

    def one_row(loop: tuple[Lanes, Any], row: Array) -> tuple[Any, None]:
        (lanes, carry), network = loop, scale.bind(params)
        lanes = lanes._replace(context=network.context(lanes.features, row))
        columns = jnp.arange(width)
        (lanes, carry), _ = lax.scan(
            one_pixel, (lanes, carry), (jnp.broadcast_to(row, width), columns)
        )
        state = kernels.varying_alike(network.end_row(lanes.state, lanes.context), carry)
        return (lanes._replace(state=state), carry), None

    (lanes, carry), _ = lax.scan(one_row, (start, carry), jnp.arange(height))
    return lanes.image, carry
