"""A proof, on a small map, of what bodies and layers promise: `CausalMap`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pixel_rnn_jax.model import layers
from pixel_rnn_jax.model.layers.body import Body, CausalMap

BATCH, HEIGHT, WIDTH = 3, 4, 5
FEATURES, GROUPS, CONDITION = 4, 3, 2  # Groups that do not divide the features.


def check(body: str | Callable[..., CausalMap]) -> np.ndarray:
    """Checks a body or a layer on maps of 4x5 pixels with random parameters, in float64.

    - Each output sees earlier pixels, and in its own pixel the groups up to its own, alone: by the
      Jacobian at several draws, which is compared with finite differences.
    - An image does not depend on the other images of its batch.
    - The incremental form, with repeated steps and `narrow` ones, computes the whole map.

    Args:
        body: Its name in `BODIES`, or a class or a partial of one; `layers` is 2 unless given.

    Returns:
        The inputs that each output depends on, `[H, W, outputs, H, W, 2h]` booleans.

    Raises:
        AssertionError: It breaks a promise; the message names the first wrong output.

    >>> prnn.layers.check("linear_rnn").shape
    (4, 5, 8, 4, 5, 8)
    """
    class_: Any = layers.BODIES[body] if isinstance(body, str) else body
    if "layers" in getattr(class_, "func", class_).__dataclass_fields__:
        class_ = functools.partial(class_, **{"layers": 2} | getattr(class_, "keywords", {}))
    with jax.enable_x64(True):
        float64: Any = dict(dtype=jnp.float64, param_dtype=jnp.float64)
        module = class_(features=FEATURES, mask_groups=GROUPS, condition=CONDITION, **float64)
        arrays = [jnp.zeros((BATCH, HEIGHT, WIDTH, size)) for size in (2 * FEATURES, CONDITION)]
        shapes = jax.eval_shape(module.init, jax.random.key(0), *arrays), *arrays
        sees = _dependence(module, shapes)
        _check_gradients(module, _draw(shapes, 0))
        _check_incremental_form(module, _draw(shapes, 0))
    return sees


def _draw(shapes: Any, seed: int) -> Any:
    """Draws parameters, a map and a condition; initial values such as 0 would hide paths."""
    (params, *maps), random = shapes, np.random.default_rng(seed)

    def draw(leaf: Any) -> Array:
        # Biases are mostly positive, so that few ReLUs are dead.
        mean, fan_in = (1, 4) if leaf.ndim == 1 else (0, leaf.size // leaf.shape[-1])
        return jnp.asarray(random.normal(mean, fan_in**-0.5, size=leaf.shape))

    drawn = (jnp.asarray(random.normal(0.5, size=leaf.shape)) for leaf in maps)
    return jax.tree.map(draw, params), *drawn


def _dependence(module: CausalMap, shapes: Any) -> np.ndarray:
    """Returns the inputs that outputs see at any draw, and checks that all come earlier."""
    jacobian = jax.jit(jax.jacrev(lambda x, params, c: module.apply(params, x, c)[0]))
    sees: Any = False
    for seed in range(20):  # A ReLU may hide an input from some draws.
        params, x, condition = _draw(shapes, seed)
        sees |= np.asarray(jacobian(x, params, condition)) != 0
    assert not sees[..., 1:, :, :, :].any(), "an image depends on another image of its batch"
    sees = sees[..., 0, :, :, :]
    outputs, size = sees.shape[2], (2 if isinstance(module, Body) else 1) * FEATURES
    assert outputs == size, f"a pixel has {outputs} outputs, and must have {size}"
    order_out, order_in = (_order(features) for features in (outputs, 2 * FEATURES))
    wrong = np.argwhere(sees & (order_in > order_out[..., None, None, None]))
    if len(wrong):
        names = ("row", "column", "feature") * 2
        words = [f"{name} {index}" for name, index in zip(names, wrong[0], strict=True)]
        output, seen = ", ".join(words[:3]), ", ".join(words[3:])
        raise AssertionError(f"the output at {output} sees {seen}, which it must not")
    return sees


def _order(features: int) -> np.ndarray:
    """Returns when the group of each feature is decided, `[H, W, features]`."""
    pixel = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
    return pixel * GROUPS + np.arange(features) * GROUPS // features


def _check_gradients(module: CausalMap, arguments: Any) -> None:
    random = np.random.default_rng(1)
    weights = random.normal(size=jax.eval_shape(module.apply, *arguments).shape)
    directions = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), arguments)

    def value(*arguments: Any) -> Array:
        return (module.apply(*arguments) * weights).sum()

    @jax.jit
    def moved(step: float) -> Array:
        return value(*jax.tree.map(lambda leaf, d: leaf + step * d, arguments, directions))

    gradient = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*arguments)
    slopes = jax.tree.map(lambda leaf, d: (leaf * d).sum(), gradient, directions)
    expected, why = (moved(1e-6) - moved(-1e-6)) / 2e-6, "the gradient is no finite difference"
    np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), expected, rtol=1e-6, err_msg=why)


def _check_incremental_form(module: CausalMap, arguments: Any) -> None:
    @jax.jit
    def pixel_by_pixel(params: Any, x: Array, condition: Array) -> Array:
        def one_row(state: Any, row: Array) -> tuple[Any, Array]:
            def one_pixel(state: Any, column: Array) -> tuple[Any, Array]:
                pixel, bound = x[:, row, column], module.bind(params)
                # A step may be repeated with another value of the pixel.
                bound.step(state, pixel + 1, (row, column), context)
                out, after = bound.step(state, pixel, (row, column), context)
                outputs = [out]
                for groups in range(1, GROUPS) if module.narrow else ():
                    given = -(-groups * pixel.shape[-1] // GROUPS)
                    first, _ = bound.step(state, pixel[:, :given], (row, column), context)
                    outputs.append(out.at[:, : -(-groups * out.shape[-1] // GROUPS)].set(first))
                return after, jnp.stack(outputs)

            context = module.bind(params).context(condition[:, row])
            state, outputs = lax.scan(one_pixel, state, jnp.arange(WIDTH))
            return module.bind(params).end_row(state, context), outputs

        state = module.bind(params).init_state(BATCH, HEIGHT, WIDTH)
        _, outputs = lax.scan(one_row, state, jnp.arange(HEIGHT))
        return outputs.transpose(2, 3, 0, 1, 4)

    why = "the incremental form does not compute the whole map"
    found, expected = pixel_by_pixel(*arguments), jax.jit(module.apply)(*arguments)
    np.testing.assert_allclose(
        found, np.broadcast_to(expected, found.shape), rtol=0, atol=1e-12, err_msg=why
    )
