"""The one loop over the values of images, in generation order: scale, row, column, channel.

Sampling, completion and the codec run this loop, each with its own `choose`, from the network's
outputs for one value of every lane to the values. A lane is an image that is decided beside others:
a sample, a particle, an image of a compressed block.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from pixel_rnn_jax.model import Scale, kernels
from pixel_rnn_jax.model.layers.body import State

PyTree = Any


class Place(NamedTuple):
    """The place of a value: its scale, and row, column and channel in the image of the scale.

    If `copied`, the value is the smaller scale's, and the result of `choose` is not used. The scale
    is known at compile time. `remaining` is as in `Lanes`.
    """

    scale: int
    row: Array
    column: Array
    channel: ArrayLike
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
    images: Array | None = None,
    known: Array | None = None,
) -> tuple[Array, Any]:
    """Decides every value of L images, `lanes`, each given all values before it; traceable.

    A pixel that is `known`, `[L or 1, H, W, C]`, in all lanes takes one step of the network for all
    channels; there `choose` must return the values of `images`.

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
        own, given = jnp.zeros((lanes, *scale.network.image_shape), dtype), scale.copied
        if images is not None and known is not None:
            own = jnp.broadcast_to(scale.subsample(images), own.shape).astype(dtype)
            given = given | scale.subsample(known).all(axis=(0, 3))
        if image is not None:
            own = own.at[:, :: scale.network.ratio, :: scale.network.ratio].set(image)
        state, context = network.init_state(lanes), network.context(features, 0)
        total = network.config.total
        remaining = jnp.full(lanes, total, jnp.int32) if total else None
        start = Lanes(own, state, features, context, remaining)
        start, carry = kernels.varying_alike((start, carry), (params, start, carry))
        options = (given, end_pixel)
        image, carry = _for_each_value_of(number, scale, params, choose, carry, start, *options)
    assert image is not None
    return image, carry


def _for_each_value_of(
    number: int,
    scale: Scale,
    params: PyTree,
    choose: Choose,
    carry: Any,
    start: Lanes,
    given: ArrayLike,
    end_pixel: EndPixel | None,
) -> tuple[Array, Any]:
    height, width, channels = scale.network.image_shape
    groups, some_given = scale.network.mask_groups, not isinstance(given, np.ndarray) or given.any()
    all_copied, given = jnp.asarray(scale.copied), jnp.asarray(given)

    def one_pixel(loop: tuple[Lanes, Any], position: tuple[Array, Array]) -> tuple[Any, None]:
        (lanes, carry), (row, column) = loop, position
        network = scale.bind(params)
        copied: ArrayLike = all_copied[row, column] if scale.copied.any() else False

        def step(pixel: Array) -> tuple[Array, State]:  # Each is from the same state.
            return network.step(lanes.state, pixel, position, lanes.context)

        def decide(channel: ArrayLike, of_pixel: Array, so_far: Any, some: int = channels) -> Any:
            pixel, remaining, carry = so_far
            outputs = network.split_channels(of_pixel, pixel[:, :some])[:, channel]
            if network.total is not None and remaining is not None:
                num_after = ((height - row) * width - column) * channels - channel - 1
                outputs = network.total.restrict(outputs, remaining, num_after)
            place = Place(number, row, column, channel, copied, remaining)
            carry, values = choose(carry, outputs, place)
            values = jnp.where(copied, pixel[:, channel], values.astype(pixel.dtype))
            remaining = None if remaining is None else remaining - values
            return pixel.at[:, channel].set(values), remaining, carry

        def one_channel(channel: Array, so_far: Any) -> Any:
            return decide(channel, step(so_far[0])[0], so_far)

        def first_channels(of_pixel: Array, so_far: Any) -> Any:
            for channel in range(groups - 1):
                so_far = decide(channel, of_pixel, so_far)
            return so_far

        def one_by_one(so_far: Any) -> Any:
            if not network.body.narrow:
                return lax.fori_loop(0, groups - 1, one_channel, so_far)
            for some in range(1, groups):
                so_far = decide(some - 1, step(so_far[0][:, :some])[0], so_far, some)
            return so_far

        so_far = lanes.image[:, row, column], lanes.remaining, carry
        if some_given and groups > 1:
            so_far = lax.cond(given[row, column], lambda same: same, one_by_one, so_far)
        else:
            so_far = one_by_one(so_far)
        of_pixel, state = step(so_far[0])  # The last one gives the outputs of a given pixel.
        if some_given and groups > 1:
            arguments = of_pixel, so_far
            so_far = lax.cond(given[row, column], first_channels, lambda *same: same[1], *arguments)
        for channel in range(groups - 1, channels):
            so_far = decide(channel, of_pixel, so_far)
        pixel, remaining, carry = so_far
        place = Place(number, row, column, channels - 1, copied, remaining)
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
