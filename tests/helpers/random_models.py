"""Models with random parameters, and all images of tiny shapes to compare their samples with."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax.model.layers import BODIES
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system.trees import by_name

ARCHITECTURES = tuple(BODIES)


def random_like(shapes, seed):
    """Draws parameters of given shapes: initial values such as zero biases would hide paths.

    Biases are mostly positive, so that few ReLUs are dead.
    """
    random = np.random.default_rng(seed)

    def draw(leaf):
        mean, fan_in = (2, 1) if leaf.ndim == 1 else (0, np.prod(leaf.shape[:-1]))
        return jnp.asarray(random.normal(mean, fan_in**-0.5, size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)


def model_and_parameters(architecture, image_shape, levels, *, seed=0, units=None, **options):
    defaults = {"layers": 2, "features": 5, "head_features": 6, "first_kernel": 5}
    config = prnn.ModelConfig(architecture, **defaults | options)
    model = PixelRNN(config, image_shape, levels, **units or {})
    return model, random_like(jax.eval_shape(model.init, jax.random.key(0)), seed)


def tiny_model(
    architecture="pixel_cnn",
    image_shape=(4, 4, 1),
    levels=3,
    *,
    class_names=(),
    seed=0,
    units=None,
    **options,
):
    """An `ImageModel` of one narrow layer with random parameters; `units` are mean and std."""
    options = {"layers": 1, "features": 3, "head_features": 4, "first_kernel": 3} | options
    options |= {"seed": seed, "units": units}
    model, params = model_and_parameters(architecture, image_shape, levels, **options)
    return prnn.ImageModel(model, params, class_names)


def random_batch(model, count, *, seed=0):
    """Random images for a `PixelRNN`, and their condition."""
    random, config, levels = np.random.default_rng(seed), model.config, model.levels
    images = random.integers(max(levels, 2), size=(count, *model.image_shape))
    if not levels:
        images = random.normal(size=images.shape) * model.std + model.mean
    elif not model.likelihood.discrete:
        images = images + random.random(images.shape)
    if config.num_classes:
        return images, np.arange(count) % config.num_classes
    if config.condition_vector:
        return images, random.normal(size=(count, config.condition_vector))
    if config.condition_map:
        return images, random.normal(size=(*images.shape[:3], config.condition_map))
    return images, None


def whole_map_outputs(model, params, images, condition=None):
    """The outputs of each scale, every network applied to whole images."""
    images = jnp.asarray(images)
    return [scale.bind(params)(*scale.inputs(images, condition)) for scale in model.scales]


def with_large_conditions(params):
    """Makes more of the condition of the body layers."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: 8 * x if "condition_to" in jax.tree_util.keystr(path) else x, params
    )


def soft_model(architecture, image_shape, levels, *, size=1.0, seed=0, **options):
    """A model with random parameters and no extreme probability: logits up to about `size`."""
    model, params = model_and_parameters(architecture, image_shape, levels, seed=seed, **options)
    images = all_images(image_shape, levels)
    condition = np.zeros(len(images), int) if model.config.num_classes else None
    outputs = jax.jit(lambda params: whole_map_outputs(model, params, images, condition))(params)
    return prnn.ImageModel(
        model, with_scaled_outputs(model, params, [size / np.abs(x).max() for x in outputs])
    )


def with_scaled_outputs(model, params, factors):
    """Multiplies the outputs of each scale."""
    params = dict(params)
    for scale, factor in zip(model.scales, factors, strict=True):
        logits = jax.tree.map(lambda leaf, n=factor: n * leaf, params[scale.name]["logits"])
        params[scale.name] = params[scale.name] | {"logits": logits}
    return params


def all_images(image_shape, levels):
    images = itertools.product(range(levels), repeat=int(np.prod(image_shape)))
    return np.array(list(images), np.uint8).reshape(-1, *image_shape)


def frequencies(images, levels, weights=None):
    """How often each image occurs, in the order of `all_images`."""
    digits = np.asarray(images).reshape(len(images), -1)
    places = levels ** np.arange(digits.shape[1])[::-1]
    return np.bincount(digits.astype(int) @ places, weights, minlength=levels ** digits.shape[1])


def posterior(model, image, known, label=None):
    """The exact probability of every image given the known values, and log p(known)."""
    images = all_images(model.image_shape, model.levels)
    condition = None if label is None else np.full(len(images), label)
    chances = np.exp(np.asarray(jax.jit(model.log_prob)(images, condition), float))
    chances[((images != image) & known).any(axis=(1, 2, 3))] = 0
    return chances / chances.sum(), np.log(chances.sum())


def chi_square_is_plausible(counts, probabilities):
    """Whether counts may come from the distribution: within 4 standard deviations of chi-square."""
    expected = counts.sum() * probabilities
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert expected.min() > 5  # The statistic needs it.
    statistic = ((counts - expected) ** 2 / expected).sum()
    degrees = len(counts) - 1
    return abs(statistic - degrees) < 4 * np.sqrt(2 * degrees)


def assert_trees_close(tree, expected, rtol=1e-12, atol=1e-12):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), tree, expected
    )


def arrays_of(model):
    """The parameters by the names that they have in an exported file."""
    return {name: np.asarray(leaf) for name, leaf in by_name(model.params).items()}


def assert_same(model, other):
    assert model.pixel_rnn == other.pixel_rnn and model.class_names == other.class_names
    arrays, others = arrays_of(model), arrays_of(other)
    assert {k: v.dtype for k, v in arrays.items()} == {k: v.dtype for k, v in others.items()}
    jax.tree.map(np.testing.assert_array_equal, arrays, others)
