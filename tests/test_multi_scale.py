"""Multi-Scale PixelRNN and classes: probabilities, dependencies, generation and the codec."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reachability import allowed, reach, reach_of_coarse
from test_complete import total_variation
from test_incremental import model_and_parameters
from test_masks import ARCHITECTURES, random_like
from test_sample import all_images, chi_square_is_plausible, frequencies, soft_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax import complete, joint, sample
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.models import MultiScalePixelRNN, PixelRNN, scales

KEY = jax.random.key(3)
TINY = dict(layers=1, features=3, head_features=4, first_kernel=3)


def model_of(architecture="diagonal_bilstm", shape=(4, 4, 1), levels=2, **options):
    return model_and_parameters(architecture, shape, levels, **TINY | options)


def with_large_conditions(params):
    """Makes more of what the body layers are conditioned on."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: 8 * x if "condition_to" in jax.tree_util.keystr(path) else x, params
    )


# ------------------------------------------------------------------------------------ probabilities


@functools.cache
def every_image():
    """All 65,536 binary images of 4x4."""
    return (np.arange(2**16)[:, None] >> np.arange(16) & 1).reshape(-1, 4, 4, 1).astype(np.uint8)


def probabilities(model, params, label=None):
    """Of all 65,536 images."""
    nats = jax.jit(joint.nats_by_scale(model))
    found = []
    for images in np.split(every_image(), 32):
        labels = None if label is None else np.full(len(images), label)
        found.append(np.asarray(nats(params, Batch(images, labels)), float).sum(-1))
    return np.exp(-np.concatenate(found))


NORMALISED = [
    (architecture, heights, output)
    for architecture in ARCHITECTURES
    for heights in ((2, 4), (1, 2, 4))
    for output in ("softmax", "logistic")
]
QUICK = [0, 7, 11]


@pytest.mark.parametrize(
    ("architecture", "heights", "output"),
    [
        pytest.param(*case, marks=() if number in QUICK else pytest.mark.slow)
        for number, case in enumerate(NORMALISED)
    ],
)
def test_probabilities_of_all_images_add_up_to_one(architecture, heights, output):
    chances = probabilities(*model_of(architecture, scales=heights, output=output, mixtures=3))
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    assert np.log(chances).std() > 0.5


@pytest.mark.parametrize(
    "architecture",
    ["row_lstm", *(pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES[::2])],
)
@pytest.mark.parametrize("options", [dict(scales=(1, 2, 4)), dict()])
def test_probabilities_add_up_to_one_for_each_class(architecture, options):
    model, params = model_of(architecture, classes=3, **options)
    by_class = [probabilities(model, params, label) for label in range(3)]
    for chances in by_class:
        assert chances.sum() == pytest.approx(1, abs=1e-5)
    for one, other in itertools.combinations(by_class, 2):
        assert np.abs(np.log(one) - np.log(other)).max() > 0.05


@pytest.mark.parametrize("heights", [pytest.param((2, 4), marks=pytest.mark.slow), (1, 2, 4)])
def test_plain_form_adds_up_to_how_often_its_chain_agrees_with_itself(heights):
    model, params = model_of("pixel_cnn", scales=heights, exact=False)
    total = probabilities(model, params).sum()
    assert total < 0.9
    count = 20_000
    nothing = jnp.zeros((count, 4, 4, 1), bool)
    by_scale, _ = jax.jit(
        lambda params: sample.generate(
            model, params, KEY, jnp.ones(()), jnp.arange(count), nothing.astype(int), nothing
        )
    )(params)
    agrees = np.ones(count, bool)
    for scale, before in zip(scales(model)[1:], by_scale, strict=False):
        own = by_scale[len(scales(model)) - 1] if scale.stride == 1 else by_scale[1]
        ratio = scale.network.ratio
        agrees &= (np.asarray(own)[:, ::ratio, ::ratio] == before).all(axis=(1, 2, 3))
    error = np.sqrt(total * (1 - total) / count)
    assert abs(agrees.mean() - total) < 3 * error


def test_exact_form_copies_what_the_smaller_image_gives():
    model, params = model_of(scales=(1, 2, 4))
    nothing = jnp.zeros((50, 4, 4, 1), bool)
    by_scale, terms = jax.jit(
        lambda params: sample.generate(
            model, params, KEY, jnp.ones(()), jnp.arange(50), nothing.astype(int), nothing
        )
    )(params)
    for scale, own in zip(scales(model), by_scale, strict=True):
        np.testing.assert_array_equal(scale.subsample(by_scale[-1]), own)
    expected = jax.jit(lambda params, x: joint.log_prob(model, params, Batch(x)))
    np.testing.assert_allclose(terms, expected(params, by_scale[-1]), atol=1e-4)


def test_terms_and_conditionals_lie_at_the_pixel_that_each_scale_gives():
    model = prnn.ImageModel(*model_of("row_lstm", (4, 8, 2), 3, scales=(1, 4)))
    images = np.random.default_rng(0).integers(3, size=(5, 4, 8, 2))
    terms = model.log_prob(images, per_pixel=True)
    conditionals = model.conditionals(images)
    np.testing.assert_allclose(np.exp(conditionals.astype(float)).sum(-1), 1, atol=1e-5)
    picked = np.take_along_axis(conditionals, images[..., None], -1)[..., 0]
    np.testing.assert_allclose(terms, picked, atol=1e-5)
    # The smallest image alone decides its own terms, all over the image.
    others = images.copy()
    others[:, 1:] = 0
    others[:, :, np.arange(8) % 4 > 0] = 0
    np.testing.assert_allclose(
        model.log_prob(others, per_pixel=True)[:, ::4, ::4], terms[:, ::4, ::4], atol=1e-5
    )
    np.testing.assert_allclose(model.log_prob(images), terms.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_chain_of_networks_is_what_the_module_computes():
    model, params = model_of(shape=(8, 8, 2), scales=(2, 4, 8), classes=2)
    assert isinstance(model, MultiScalePixelRNN)
    images, labels = np.random.default_rng(0).integers(2, size=(3, 8, 8, 2)), np.array([0, 1, 1])
    batch = Batch(images, labels)
    nats = jax.jit(joint.nats_by_scale(model))(params, batch)
    inputs = model.likelihood.inputs(jnp.asarray(images))
    for scale, outputs, own in zip(
        scales(model), jax.jit(model.apply)({"params": params}, inputs, labels), nats.T, strict=True
    ):
        terms = model.likelihood.log_prob(outputs, scale.subsample(images))
        terms = np.where(scale.given[None, ..., None], 0, terms)
        np.testing.assert_allclose(-terms.sum(axis=(1, 2, 3)), own, rtol=1e-4)


# ------------------------------------------------------------------------------------- dependencies


def dependencies(architecture, shape, ratio, layers, promised):
    """Returns where the gradient by image and by small image is not zero in one of several draws.

    The batch holds one copy of the images for each output; in float64.
    """
    size, coarse_shape = int(np.prod(shape)), (shape[0] // ratio, shape[1] // ratio, shape[2])
    with jax.enable_x64(True):
        config = prnn.ModelConfig(
            architecture,
            layers=layers,
            features=4,
            head_features=5,
            first_kernel=3,
            dtype="float64",
        )
        model = PixelRNN(config, shape, 3, ratio)
        inputs = jnp.zeros((1, *shape)), None, jnp.zeros((1, *coarse_shape))
        start = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))["params"]
        output = jnp.eye(size).reshape(size, *shape, 1)
        weights = jnp.array([1.0, -0.7, 0.4]).reshape(1, 1, 1, 1, 3)  # Of the logits of one value.

        @jax.jit
        def depends(params, image, coarse):
            copies = [jnp.broadcast_to(x, (size, *x.shape)) for x in (image, coarse)]
            _, pull = jax.vjp(lambda x, y: model.apply({"params": params}, x, None, y), *copies)
            return [gradient != 0 for gradient in pull(output * weights)]

        seen = [np.zeros((*shape, *shape), bool), np.zeros((*shape, *coarse_shape), bool)]
        for draw in range(20):
            random = np.random.default_rng(draw)
            params = random_like(start, draw)
            images = (jnp.asarray(random.uniform(-1, 1, s)) for s in (shape, coarse_shape))
            for old, new in zip(seen, depends(params, *images), strict=True):
                old |= np.asarray(new).reshape(old.shape)
            if draw >= 3 and not any((p & ~s).any() for p, s in zip(promised, seen, strict=True)):
                break
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("shape", "ratio", "layers"),
    [
        ((6, 20, 1), 2, 1),
        pytest.param((4, 6, 3), 2, 2, marks=pytest.mark.slow),
        pytest.param((3, 27, 2), 3, 1, marks=pytest.mark.slow),
        pytest.param((18, 10, 1), 2, 1, marks=pytest.mark.slow),
    ],
)
def test_conditional_model_sees_the_small_image_as_far_as_promised(
    architecture, shape, ratio, layers
):
    of_image = reach(architecture, shape, layers=layers, first_kernel=3)
    of_coarse = reach_of_coarse(architecture, shape, ratio, layers=layers)
    assert not (of_image & ~allowed(shape)).any()
    of_coarse = np.broadcast_to(of_coarse[..., None], (*of_coarse.shape, shape[-1]))
    assert not of_coarse.all() or shape == (4, 6, 3)  # There is something that it must not see.
    seen = dependencies(architecture, shape, ratio, layers, (of_image, of_coarse))
    np.testing.assert_array_equal(seen[0], of_image)
    np.testing.assert_array_equal(seen[1], of_coarse)


@pytest.mark.parametrize(
    "architecture",
    ["row_lstm", *(pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES[::2])],
)
def test_every_parameter_has_a_gradient(architecture):
    model, _ = model_of(architecture, (8, 8, 3), 3, scales=(2, 8), classes=2, features=6)
    params = joint.init_parameters(model, jax.random.key(1))
    images = np.random.default_rng(0).integers(3, size=(8, 8, 8, 3))
    batch = Batch(images, np.arange(8) % 2)
    nats = joint.nats_by_scale(model)
    gradient = jax.jit(jax.grad(lambda p: nats(p, batch).sum(-1).mean()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.any(leaf != 0), jax.tree_util.keystr(path)


# --------------------------------------------------------------------------------------- generation


def test_what_is_exact():
    module, _ = model_of(shape=(4, 4, 2), scales=(2, 4))
    known = np.zeros((4, 4, 2), bool)
    known[::2, ::2] = True  # The smaller image.
    assert complete.is_exact(module, known)
    known[0, 1] = True
    assert complete.is_exact(module, known)
    known[0, 3] = known[1, 0] = True
    assert complete.is_exact(module, known)
    known[0, 3, 0] = False
    assert not complete.is_exact(module, known)
    assert not complete.is_exact(module, np.arange(32).reshape(4, 4, 2) < 16)
    # The plain form draws the pixels of the smaller image a second time, after others.
    plain, _ = model_of(shape=(4, 4, 2), scales=(2, 4), exact=False)
    known[:] = False
    known[::2, ::2] = True
    assert not complete.is_exact(plain, known)
    assert complete.is_exact(plain, known & False) and complete.is_exact(plain, known | True)


def test_frequencies_are_the_probabilities(monkeypatch):
    monkeypatch.setattr(sample, "CPU_LANES", 2500)
    for options in (dict(scales=(1, 2)), dict(scales=(1, 2), output="logistic", mixtures=2)):
        model = soft_model("row_lstm", (2, 2, 1), 3, size=2.0, **options)
        chances = np.exp(model.log_prob(all_images((2, 2, 1), 3)).astype(float))
        counts = frequencies(model.sample(KEY, 100_000), 3)
        assert chi_square_is_plausible(counts, chances)
        assert not chi_square_is_plausible(counts, np.full(81, 1 / 81))


def test_frequencies_of_each_class(monkeypatch):
    monkeypatch.setattr(sample, "CPU_LANES", 2500)
    model = soft_model("pixel_cnn", (2, 2, 1), 2, size=2.0, classes=2)
    images, by_class = all_images((2, 2, 1), 2), []
    for label in range(2):
        chances = np.exp(model.log_prob(images, np.full(16, label)).astype(float))
        counts = frequencies(model.sample(KEY, 20_000, np.full(20_000, label)), 2)
        assert chi_square_is_plausible(counts, chances)
        by_class.append((counts, chances))
    assert not chi_square_is_plausible(by_class[0][0], by_class[1][1])


def posterior(model, image, known):
    images = all_images(model.image_shape, model.levels)
    chances = np.exp(model.log_prob(images).astype(float))
    chances[((images != image) & known).any(axis=(1, 2, 3))] = 0
    return chances / chances.sum(), np.log(chances.sum())


def test_what_comes_first_in_generation_order_is_completed_exactly(monkeypatch):
    monkeypatch.setattr(sample, "CPU_LANES", 1000)
    model = soft_model("row_lstm", (2, 4, 1), 2, size=1.0, scales=(1, 2))
    known = np.zeros((2, 4, 1), bool)
    known[0, ::2] = known[0, 1] = True
    assert complete.is_exact(model.module, known)
    assert not complete.is_exact(model.module, np.arange(8).reshape(2, 4, 1) >= 4)
    image = all_images((2, 4, 1), 2)[200]
    done = model.complete(KEY, np.repeat(image[None], 8000, axis=0), known)
    exact, log_prob_known = posterior(model, image, known)
    counts = frequencies(done.images, 2)
    assert counts[exact == 0].sum() == 0
    assert chi_square_is_plausible(counts[exact > 0], exact[exact > 0])
    np.testing.assert_allclose(done.log_prob_known, log_prob_known, rtol=1e-4)


def lively_model(architecture, shape, **options):
    """A model of binary images whose values depend much on one another."""
    module, params = model_and_parameters(architecture, shape, 2, seed=2, **options)
    params = jax.tree.map(lambda x: 2 * x if x.ndim > 1 else (x - 2) / 2, params)
    params = with_large_conditions(params)
    outputs = joint.outputs(module, params, Batch(all_images(shape, 2)))
    for scale, own in zip(scales(module), outputs, strict=True):
        last, factor = scale.select(params), 4 / np.abs(own - np.mean(own)).max()
        last["logits"] = jax.tree.map(lambda x, factor=factor: factor * x, last["logits"])
    return prnn.ImageModel(module, params)


@pytest.mark.parametrize(
    "architecture",
    ["row_lstm", pytest.param("diagonal_bilstm", marks=pytest.mark.slow)],
)
def test_particles_have_the_exact_posterior(architecture):
    """Values of either scale are known, with unknown ones of the same scale before and behind."""
    model = lively_model(architecture, (2, 6, 1), scales=(1, 2))
    known = np.zeros((2, 6, 1), bool)
    known[0, [2, 3]] = known[1, [1, 2]] = True

    def likelihood(image):
        return posterior(model, image, known)[1]

    # The least likely of some, so that many particles are replaced.
    image = min(all_images((2, 6, 1), 2)[::129], key=likelihood)
    exact, log_prob_known = posterior(model, image, known)
    found = jax.jit(
        lambda params: complete.particle_filter(
            model.module, params, KEY, jnp.asarray(image.astype(int)), jnp.asarray(known), 16_384
        )
    )(model.params)
    assert found.effective_sample_size < 8192
    values = np.asarray(found.values)
    assert (values == image)[:, known].all()
    weights = np.exp(np.asarray(found.log_weights, float))
    number = values.reshape(16_384, -1) @ 2 ** np.arange(12)[::-1]
    assert total_variation(np.bincount(number, weights, minlength=4096), exact) < 0.045
    assert found.log_evidence == pytest.approx(log_prob_known, abs=0.06)


def test_known_values_are_unchanged():
    model = prnn.ImageModel(*model_of("row_lstm", (4, 8, 3), 7, scales=(2, 4), classes=2))
    random = np.random.default_rng(0)
    images, labels = random.integers(7, size=(3, 4, 8, 3)), np.array([1, 0, 1])
    known = random.random((3, 4, 8, 3)) < 0.5
    for particles in (1, 4):
        done = model.complete(KEY, images, known, labels, particles=particles)
        assert (done.images == images)[known].all()
        assert (done.images != images)[~known].any()
        whole = model.complete(KEY, images, known | True, labels, particles=particles)
        np.testing.assert_allclose(whole.log_prob_known, model.log_prob(images, labels), rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        dict(scales=(2, 4), classes=3, output="logistic"),
        pytest.param(dict(scales=(1, 2, 4)), marks=pytest.mark.slow),
        pytest.param(dict(classes=3), marks=pytest.mark.slow),
    ],
)
def test_codec(options):
    module, params = model_of("pixel_cnn", (4, 8, 2), 5, **options)
    model = prnn.ImageModel(module, with_large_conditions(params))
    random = np.random.default_rng(0)
    labels = random.integers(3, size=200) if "classes" in options else None
    images = model.sample(KEY, 200, labels)
    data = model.compress(images, labels)
    decoded, found = model.decompress(data, return_labels=True)
    np.testing.assert_array_equal(decoded, images)
    if labels is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, labels)
        # What is of another class takes more, since the class is made use of.
        assert len(model.compress(images, (labels + 1) % 3)) > len(data) + 12
    bits = model.bits_per_dim(images, labels).sum() * 4 * 8 * 2
    bits += 200 * np.log2(3) if labels is not None else 0
    assert 0 < len(data) - bits / 8 < 200 + 0.005 * bits / 8


# --------------------------------------------------------------------------------- what is refused


def test_plain_form_refuses_what_needs_a_probability():
    model = prnn.ImageModel(*model_of(scales=(2, 4), exact=False))
    images, log_probs = model.sample(KEY, 20, return_log_prob=True)
    np.testing.assert_allclose(model.log_prob(images), log_probs, rtol=1e-4)
    with pytest.raises(prnn.UserError, match="plain form .exact=False. has no conditionals"):
        model.conditionals(images)
    with pytest.raises(prnn.UserError, match="plain form .model.exact=false. gives images no"):
        model.compress(images)


def test_density_refuses_what_needs_a_probability():
    model = prnn.ImageModel(*model_of(output="continuous", levels=5))
    samples, log_probs = model.sample(KEY, 3, return_log_prob=True)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(model.log_prob(samples), log_probs, rtol=1e-4)
    images = np.zeros((1, 4, 4, 1), np.uint8)
    with pytest.raises(prnn.UserError, match="a continuous model has no conditionals"):
        model.conditionals(samples)
    with pytest.raises(prnn.UserError, match="add noise with `dequantize`"):
        model.log_prob(images)
    with pytest.raises(prnn.UserError, match="a continuous model completes no images"):
        model.complete(KEY, samples, np.ones((4, 4), bool))
    with pytest.raises(prnn.UserError, match="no probability that could be coded"):
        model.compress(samples)
    with pytest.raises(prnn.UserError, match="temperature must be 1 for a continuous model"):
        model.sample(KEY, 1, temperature=0.5)
    with pytest.raises(prnn.UserError, match="finite"):
        model.log_prob(samples * np.inf)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "this model has 3 classes: give labels"),
        ([0, 1], "labels must be 4 integers, one for each image, got shape .2."),
        ([0, 1, 2, 3], "labels must be from 0 to 2, got 0 to 3"),
        ([0.0, 1.0, 1.0, 1.0], "labels must be 4 integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    model = prnn.ImageModel(*model_of(classes=3))
    images = np.zeros((4, 4, 4, 1), np.uint8)
    for call in (
        lambda: model.log_prob(images, labels),
        lambda: model.sample(KEY, 4, labels),
        lambda: model.complete(KEY, images, np.ones((4, 4), bool), labels),
        lambda: model.compress(images, labels),
    ):
        with pytest.raises(prnn.UserError, match=message):
            call()


def test_superfluous_labels_are_refused():
    model = prnn.ImageModel(*model_of())
    with pytest.raises(prnn.UserError, match="labels are for a model with classes"):
        model.log_prob(np.zeros((1, 4, 4, 1), np.uint8), [0])


@pytest.mark.parametrize(
    ("shape", "heights", "message"),
    [
        ((8, 8, 1), (2, 4), "model.scales must end with the height of the images, 8, got .2, 4."),
        ((8, 6, 1), (2, 8), "images 6 wide cannot be made 4 times smaller"),
    ],
)
def test_scales_that_do_not_fit_the_images_are_refused(shape, heights, message):
    with pytest.raises(prnn.UserError, match=message):
        prnn.create(prnn.ModelConfig(scales=heights), shape, 2)
