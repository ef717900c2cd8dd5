"""What each output of a network depends on, by gradients, against the sets of `reachability`."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.random_models import random_like
from helpers.reachability import reach, reach_of_coarse

from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.likelihoods import likelihood_class
from pixel_rnn_jax.model.network import Network

COLOUR = dict(image_shape=(3, 4, 3), features=5, layers=1, first_kernel=3, images_per_lane=1)
"""Features that the channels do not divide."""
TALL = dict(image_shape=(6, 7, 1), features=2, layers=1, first_kernel=3, images_per_lane=1)
"""Here the context is the work of the state, not of the first convolution."""


def check_dependencies(architecture, image_shape, *, levels=3, ratio=0, **options):
    """Asserts that every output depends on exactly the inputs that the architecture promises.

    A map that the network is conditioned on counts as an input as well, and so does the smaller
    image with a `ratio`.
    """
    config = ModelConfig(architecture, **{"head_features": 12, "dtype": "float64"} | options)
    sizes = dict(layers=config.layers, kernel=config.kernel)
    of_values = dict(first_kernel=config.first_kernel, coupled=likelihood_class(config).coupled)
    promised = [reach(architecture, image_shape, **sizes, **of_values)]
    for own_ratio, channels in ((1, config.condition_map), (ratio, image_shape[-1])):
        if own_ratio and channels:
            of_coarse = reach_of_coarse(architecture, image_shape, own_ratio, **sizes)
            promised.append(np.repeat(of_coarse[..., None], channels, axis=-1))
    _complain(promised, _dependencies(config, image_shape, levels, ratio, promised))


def check_changes(architecture, image_shape, *, levels=3, **options):
    """Asserts the same of a network that values enter by an embedding, which has no gradient.

    Every value is changed to another level, one at a time.
    """
    defaults = {"head_features": 12, "dtype": "float64", "input": "categorical"}
    config = ModelConfig(architecture, **defaults | options)
    sizes = dict(layers=config.layers, kernel=config.kernel, first_kernel=config.first_kernel)
    promised = reach(architecture, image_shape, **sizes)
    size = int(np.prod(image_shape))
    with jax.enable_x64(True):
        network = Network(config, image_shape, levels)
        image = jnp.zeros((1, *image_shape), int)
        start = jax.eval_shape(lambda: network.init(jax.random.key(0), image)["params"])
        apply = jax.jit(lambda params, images: network.apply({"params": params}, images))

        def see(draw, random):
            image = random.integers(levels, size=size)
            steps = np.diag(random.integers(1, levels, size=size))
            images = np.concatenate([image[None], (image + steps) % levels])
            outputs = apply(random_like(start, draw), images.reshape(-1, *image_shape))
            changed = (np.abs(outputs[1:] - outputs[:1]) > 1e-9).any(-1)  # [inputs, H, W, C]
            return [np.moveaxis(changed, 0, -1)]

        _complain([promised], _seen_in_draws([promised], see))


def _complain(promised, found):
    """Raises an `AssertionError` that lists each difference."""
    complaints = [
        f"output {pair[:3]} {verb} input {pair[3:]} of image {number}"
        for number, (right, seen) in enumerate(zip(promised, found, strict=True))
        for verb, wrong in [("sees", seen & ~right), ("misses", right & ~seen)]
        for pair in np.argwhere(wrong).tolist()
    ]
    assert not complaints, "\n".join(complaints)


def _dependencies(config, image_shape, levels, ratio, promised):
    """Returns where the gradient of some draw is not exactly zero, in the form of `promised`.

    The first three axes are the output (a random combination of the Q outputs of one value), the
    last three the input.
    """
    size = int(np.prod(image_shape))
    shapes = [right.shape[3:] for right in promised]
    with jax.enable_x64(True):
        network = Network(config, image_shape, levels, ratio)

        def in_order(image, *others):
            return image, others[0] if config.condition_map else None, others[-1] if ratio else None

        def apply(params, *images):
            return network.apply({"params": params}, *in_order(*images))

        def init(*images):
            return network.init(jax.random.key(0), *in_order(*images))["params"]

        start = jax.eval_shape(init, *(jnp.zeros((1, *shape)) for shape in shapes))
        # One copy of the images for each output, so that one pass gives all gradients. (With a vmap
        # over cotangents, the XLA of JAX 0.10 gives wrong float64 gradients on AVX-512.)
        output = jnp.eye(size).reshape(size, *image_shape, 1)

        @jax.jit
        def depends(params, images, weights):
            copies = [jnp.broadcast_to(image, (size, *image.shape)) for image in images]
            outputs, pull = jax.vjp(lambda *images: apply(params, *images), *copies)
            weights = weights[: outputs.shape[-1]].reshape(1, 1, 1, 1, -1)
            return [gradient != 0 for gradient in pull(output * weights)]

        def see(draw, random):
            images = [jnp.asarray(random.uniform(-1, 1, shape)) for shape in shapes]
            weights = jnp.asarray(random.normal(size=max(levels, 3 * config.mixtures)))
            return depends(random_like(start, draw), images, weights)

        return _seen_in_draws(promised, see)


def _seen_in_draws(promised, see):
    """Returns what some draw sees: of at least four, and more while something promised is not seen.

    In each draw of the parameters ReLUs hide some paths.
    """
    seen = [np.zeros_like(right) for right in promised]
    for draw in range(60):
        new = see(draw, np.random.default_rng(draw))
        seen = [old | np.reshape(own, old.shape) for old, own in zip(seen, new, strict=True)]
        missing = any((right & ~own).any() for right, own in zip(promised, seen, strict=True))
        if draw >= 3 and not missing:
            break
    return seen
