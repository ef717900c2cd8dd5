"""The functional interface: pure functions that JAX transforms, for every kind of model."""

import copy
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from jax.sharding import PartitionSpec
from random_models import ARCHITECTURES, model_and_parameters

import pixel_rnn_jax as prnn
from pixel_rnn_jax.runtime import devices

KEY = jax.random.key(2)
SHAPE = (4, 4, 2)
UPPER = np.arange(4)[:, None].repeat(4, axis=1) < 2
TINY = dict(layers=1, features=3, head_features=4, first_kernel=3)
OUTPUTS = {
    "sigmoid": (2, {}),
    "softmax": (5, {}),
    "categorical": (5, dict(input="categorical")),
    "logistic": (5, dict(output="discretized_logistic_mixture", mixtures=2)),
    "continuous": (5, dict(output="logistic_mixture", mixtures=2)),
    "gaussian_mixture": (0, dict(output="gaussian_mixture", mixtures=2)),
}
CONDITIONS = {
    "none": {},
    "class": dict(num_classes=3),
    "vector": dict(condition_vector=3),
    "map": dict(condition_map=2),
    "scales": dict(scales=(2, 4)),
    "scales and map": dict(scales=(2, 4), condition_map=2),
    "plain scales": dict(scales=(2, 4), copy_coarse=False),
}
ALL = [
    (architecture, output, condition)
    for architecture, output, condition in itertools.product(ARCHITECTURES, OUTPUTS, CONDITIONS)
    if output not in ("continuous", "gaussian_mixture") or "scales" not in condition
]
QUICK = [
    ("pixel_cnn", "categorical", "scales and map"),
    ("row_lstm", "gaussian_mixture", "class"),
    ("diagonal_bilstm", "logistic", "vector"),
]


ONE_QUICK = [
    "diagonal_bilstm",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("pixel_cnn", "row_lstm")),
]


def build(architecture, output, condition, *, count=3, seed=0, **options):
    """A model, parameters, images and their condition."""
    levels, of_output = OUTPUTS[output]
    options = TINY | of_output | CONDITIONS[condition] | options
    units = {} if levels else dict(offset=(3.0, -2.0), scale=(2.0, 0.5))
    model, params = model_and_parameters(architecture, SHAPE, levels, units=units, **options)
    random, config = np.random.default_rng(seed), model.config
    images = random.integers(max(levels, 2), size=(count, *SHAPE))
    if output == "logistic_mixture":
        images = images + random.random(images.shape)
    if not levels:
        images = random.normal(size=images.shape) * units["scale"] + units["offset"]
    if config.num_classes:
        return model, params, images, np.arange(count) % config.num_classes
    if config.condition_vector:
        return model, params, images, random.normal(size=(count, config.condition_vector))
    if config.condition_map:
        given = random.normal(size=(count, *SHAPE[:2], config.condition_map))
        return model, params, images, given
    return model, params, images, None


def towards(tree, seed):
    """A random direction in the space of a tree."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), tree)


def along(gradient, direction):
    return sum(
        jnp.vdot(g, d)
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )


@pytest.mark.parametrize(
    ("architecture", "output", "condition"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in ALL],
)
def test_gradients_are_finite_differences_and_rows_are_independent(
    x64, architecture, output, condition
):
    model, params, images, given = build(architecture, output, condition, dtype="float64")
    floats = {"params": params}
    if not model.likelihood.discrete:
        floats["images"] = jnp.asarray(images)
    if given is not None and not model.config.num_classes:
        floats["condition"] = jnp.asarray(given)
    whole = {"params": params, "images": jnp.asarray(images), "condition": given}
    direction = towards(floats, 1)

    def log_probs(floats):
        found = whole | floats
        return model.log_prob(found["params"], found["images"], found["condition"])

    def one(params, image, condition):
        rows = jax.tree.map(lambda x: x[None], (image, condition))
        return model.log_prob(params, *rows)[0]

    @jax.jit
    def measure(floats):
        moved = [
            log_probs(jax.tree.map(lambda x, d, s=sign: x + s * 1e-6 * d, floats, direction)).sum()
            for sign in (1, -1)
        ]
        gradient = jax.grad(lambda floats: log_probs(floats).sum())(floats)
        rows = jax.vmap(jax.value_and_grad(one), (None, 0, 0))(params, images, given)
        return log_probs(floats), gradient, moved, rows

    values, gradient, (above, below), (row_values, row_gradients) = measure(floats)
    slope = along(gradient, direction)
    assert abs(slope) > 1e-2
    np.testing.assert_allclose((above - below) / 2e-6, slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(row_values, values, rtol=1e-10)
    jax.tree.map(
        lambda rows, whole: np.testing.assert_allclose(rows.sum(0), whole, rtol=1e-6, atol=1e-9),
        row_gradients,
        gradient["params"],
    )


@pytest.mark.parametrize("architecture", ONE_QUICK)
def test_shards_of_a_batch_give_what_the_whole_batch_gives(architecture):
    model, params, images, given = build(architecture, "softmax", "map", count=4)
    mesh = devices.local_mesh(2)
    whole, split = PartitionSpec(), PartitionSpec(devices.AXIS)
    known = np.random.default_rng(1).random(images.shape) < 0.5

    def run(params, images, known, given, first):
        def loss(params):
            return -model.log_prob(params, images, given).sum()

        nats, gradient = jax.value_and_grad(loss)(params)
        sampled = model.sample_and_log_prob(params, KEY, len(images), given, first=first[0])
        one, two = (
            model.complete(params, KEY, images, known, given, particles=n, first=first[0])
            for n in (1, 3)
        )
        return (nats[None], gradient), (sampled, one, two)

    arguments = images, known, given, np.arange(4)
    expected = jax.jit(run)(params, *arguments)
    # JAX checks what varies over the mesh, and so adds up the gradient of what does not.
    sharded = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(whole, *[split] * 4),
        out_specs=((split, whole), split),
    )
    (nats, gradient), drawn = jax.jit(sharded)(params, *arguments)
    np.testing.assert_allclose(nats.sum(), expected[0][0].sum(), rtol=1e-5)
    for one, other in ((gradient, expected[0][1]), (drawn, expected[1])):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), one, other
        )


def test_one_compiled_program_learns_by_reinforce():
    """Samples, their log-probabilities and gradients, step by step inside `lax.scan`."""
    model, params, *_ = build("row_lstm", "sigmoid", "none")
    optimizer = optax.adam(0.05)

    def step(carry, key):
        params, state = carry
        images = model.sample(params, key, 32)
        reward = images.sum((1, 2, 3), dtype=jnp.float32)

        def loss(params):
            return -((reward - reward.mean()) * model.log_prob(params, images)).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), reward.mean()

    @jax.jit
    def learn(params):
        start = params, optimizer.init(params)
        return jax.lax.scan(step, start, jax.random.split(KEY, 60))[1]

    rewards = learn(params)
    assert rewards[-1] > 0.9 * np.prod(SHAPE) > rewards[0]


@pytest.mark.parametrize(
    "output", ["gaussian_mixture", pytest.param("softmax", marks=pytest.mark.slow)]
)
def test_samples_are_those_of_their_log_probabilities_with_x64_on_and_off(output):
    model, params, _, given = build("diagonal_bilstm", output, "vector", count=6)
    run = jax.jit(model.sample_and_log_prob, static_argnums=2)
    images, log_probs = run(params, KEY, 6, given)
    np.testing.assert_allclose(log_probs, model.log_prob(params, images, given), rtol=5e-3)
    with jax.enable_x64(True):
        again, _ = jax.jit(model.sample_and_log_prob, static_argnums=2)(params, KEY, 6, given)
        assert again.dtype == images.dtype
    np.testing.assert_array_equal(again, images)
    # Drawn in two turns.
    later = jax.jit(model.sample, static_argnums=2)(params, KEY, 2, given[4:], first=4)
    np.testing.assert_allclose(later, images[4:], rtol=1e-5)


@pytest.mark.parametrize("output", ["softmax", "logistic", "sigmoid"])
def test_log_prob_of_samples_is_that_at_their_temperature(output):
    model, params, *_ = build("pixel_cnn", output, "none")
    draw = jax.jit(model.sample_and_log_prob, static_argnums=2, static_argnames="temperature")
    images, log_probs = draw(params, KEY, 4, temperature=0.5)
    powers = jax.jit(model.conditionals)(params, images) / 0.5
    powers -= jax.nn.logsumexp(powers, axis=-1, keepdims=True)
    chosen = np.take_along_axis(np.asarray(powers), np.asarray(images)[..., None], axis=-1)
    np.testing.assert_allclose(log_probs, chosen.sum(axis=(1, 2, 3, 4)), rtol=1e-4)
    greedy, certain = draw(params, KEY, 2, temperature=0)
    np.testing.assert_array_equal(certain, 0)
    np.testing.assert_array_equal(greedy[0], greedy[1])


@pytest.mark.parametrize("architecture", ONE_QUICK)
def test_exported_programs_take_any_batch_size(architecture):
    model, params, images, given = build(architecture, "softmax", "class", count=6)
    (batch,) = export.symbolic_shape("batch")
    shapes = (
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params),
        jax.ShapeDtypeStruct((batch, *SHAPE), jnp.uint8),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )

    def loss(params, images, given):
        return model.log_prob(params, images, given).sum()

    served = export.export(jax.jit(model.log_prob))(*shapes)
    gradient = export.export(jax.jit(jax.grad(loss)))(*shapes)
    drawn = export.export(
        jax.jit(lambda params, given: model.sample(params, KEY, given.shape[0], given))
    )(shapes[0], shapes[2])
    done = export.export(jax.jit(lambda *a: model.complete(a[0], KEY, a[1], UPPER, a[2]).images))(
        *shapes
    )
    images, given = images.astype(np.uint8), given.astype(np.int32)
    log_probs = jax.jit(model.log_prob)(params, images, given)
    samples = jax.jit(model.sample, static_argnums=2)(params, KEY, 6, given)
    completed = jax.jit(lambda *a: model.complete(a[0], KEY, a[1], UPPER, a[2]).images)(
        params, images, given
    )
    for count in (1, 6):  # An image depends on its number alone.
        found = served.call(params, images[:count], given[:count])
        np.testing.assert_allclose(found, log_probs[:count], rtol=1e-4)
        found = drawn.call(params, given[:count])
        np.testing.assert_array_equal(found, samples[:count])
        found = done.call(params, images[:count], given[:count])
        np.testing.assert_array_equal(found, completed[:count])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
        gradient.call(params, images, given),
        jax.jit(jax.grad(loss))(params, images, given),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_images(architecture):
    model, params, images, given = build(architecture, "categorical", "class")
    none, given = images[:0], given[:0]
    assert jax.jit(model.log_prob)(params, none, given).shape == (0,)
    assert jax.jit(model.conditionals)(params, none, given).shape == (0, *SHAPE, 5)
    assert jax.jit(model.sample, static_argnums=2)(params, KEY, 0, given).shape == none.shape
    known = np.ones(SHAPE, bool)
    complete = jax.jit(model.complete, static_argnames="particles")
    for particles in (1, 2):
        found = complete(params, KEY, none, known, given, particles=particles)
        assert found.images.shape == none.shape


def test_completed_values_and_numbers_of_numpy_keep_their_range():
    """Of images whose type could not hold all levels."""
    config = prnn.ModelConfig("pixel_cnn", **TINY)
    model = prnn.PixelRNN(config, SHAPE, np.int64(1000))
    assert model == prnn.PixelRNN(config, SHAPE, 1000) and type(model.levels) is int
    params, nothing = model.init(KEY), np.zeros(SHAPE, bool)
    found = model.complete(params, KEY, np.zeros((3, *SHAPE), np.uint8), nothing)
    assert found.images.max() > 255
    np.testing.assert_array_equal(found.images, model.sample(params, KEY, 3))
    large = np.full((3, *SHAPE), 2**32 + 1)
    np.testing.assert_array_equal(model.complete(params, KEY, large, nothing).images, found.images)
    with pytest.raises(prnn.UserError, match="images must have values from 0 to 999, got 4294967"):
        model.complete(params, KEY, large, ~nothing)


def test_a_temperature_may_be_an_array_that_is_known():
    model, params, *_ = build("pixel_cnn", "softmax", "none")
    half = jnp.float32(0.5)
    found = jax.jit(lambda key: model.sample(params, key, 3, temperature=half))(KEY)
    np.testing.assert_array_equal(found, model.sample(params, KEY, 3, temperature=0.5))
    for wrong in (-1.0, "warm", np.ones(2)):
        with pytest.raises(prnn.UserError, match="temperature must be a number of at least 0, got"):
            model.sample(params, KEY, 3, temperature=wrong)
    for wrong in (jnp.ones(3), jnp.array(True)):  # Also where it has no value yet.
        with pytest.raises(prnn.UserError, match="temperature must be a number of at least 0, got"):
            jax.jit(lambda t: model.sample(params, KEY, 3, temperature=t))(wrong)
    for key in (jnp.zeros(3), jnp.zeros(3, jnp.uint32)):
        with pytest.raises(prnn.UserError, match="key must be one of jax.random"):
            model.sample(params, key, 3)
        with pytest.raises(prnn.UserError, match="key must be one of jax.random"):
            prnn.dequantize(np.zeros((1, *SHAPE), int), key)


def test_arrays_of_other_byte_orders_and_sizes():
    model, params, images, given = build("pixel_cnn", "softmax", "vector")
    bound, given = prnn.ImageModel(model, params), np.asarray(given)
    expected = bound.log_prob(images, given)
    other = np.asarray(images).astype(">i2")
    np.testing.assert_array_equal(bound.log_prob(other, given.astype(">f4")), expected)
    np.testing.assert_array_equal(bound.log_prob(other, given.astype(np.longdouble)), expected)


def test_names_of_classes_keep_their_shape_and_may_be_objects():
    model, params, images, _ = build("pixel_cnn", "softmax", "class", count=2)
    bound = prnn.ImageModel(model, params, ("ash", "birch", "cedar"))
    names = np.array(["cedar", "ash"], object)  # As pandas keeps text.
    np.testing.assert_array_equal(bound.log_prob(images, names), bound.log_prob(images, [2, 0]))
    with pytest.raises(prnn.UserError, match=r"condition must have shape \[2\], .* got \[2, 1\]"):
        bound.log_prob(images, names[:, None])


def test_models_can_be_pickled_and_copied():
    model, params, images, given = build("row_lstm", "gaussian_mixture", "class")
    names = ("ash", "birch", "cedar")
    bound = prnn.ImageModel(model, params, names)
    nats = bound.log_prob(images, given)
    for other in (pickle.loads(pickle.dumps(bound)), copy.deepcopy(bound), copy.copy(bound)):
        assert other.pixel_rnn == model and hash(other.pixel_rnn) == hash(model)
        np.testing.assert_array_equal(other.log_prob(images, [names[i] for i in given]), nats)


def test_bound_methods_are_transformed_as_well():
    model, params, images, given = build("pixel_cnn", "gaussian_mixture", "vector")
    bound = prnn.ImageModel(model, params)
    images = jnp.asarray(images, jnp.float32)
    expected = jax.grad(lambda x: model.log_prob(params, x, given).sum())(images)
    found = jax.jit(jax.grad(lambda x: bound.log_prob(x, given).sum()))(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found = jax.jit(lambda scale: scale * bound.log_prob(images, given))(2.0)
    np.testing.assert_allclose(found, 2 * bound.log_prob(images, given), rtol=1e-5)


@pytest.mark.parametrize("architecture", ONE_QUICK)
def test_derivatives_in_reverse_mode_and_of_second_order(architecture):
    """Curvature in one direction is the difference of slopes; forward mode is refused in words."""
    model, params, images, _ = build(architecture, "gaussian_mixture", "none", count=1)
    images = jnp.asarray(images, jnp.float32)

    def along(distance):
        return model.log_prob(params, images + distance * direction).sum()

    direction = jax.random.normal(KEY, images.shape)
    slope = jax.jit(jax.grad(along))
    np.testing.assert_allclose(jax.jacrev(along)(0.0), slope(0.0), rtol=1e-5)
    curvature = (slope(1e-2) - slope(-1e-2)) / 2e-2
    np.testing.assert_allclose(jax.jit(jax.hessian(along))(0.0), curvature, rtol=0.02)
    if architecture != "pixel_cnn":  # It has no rules of its own.
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jacfwd(along)(0.0)


def test_derivatives_of_a_batch_in_parts_are_those_of_the_whole_batch(monkeypatch):
    model, params, images, _ = build("row_lstm", "softmax", "none", count=6)
    whole = jax.jit(jax.value_and_grad(lambda p: model.log_prob(p, images).sum()))(params)
    monkeypatch.setattr(prnn.PixelRNN, "parts", lambda self, count: 3)
    parts = jax.jit(jax.value_and_grad(lambda p: model.log_prob(p, images).sum()))(params)
    values = jax.jit(model.log_prob)(params, images)
    np.testing.assert_allclose(values.sum(), whole[0], rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), parts, whole)


def test_what_is_no_value_is_refused_where_values_are_needed():
    model, params, images, _ = build("pixel_cnn", "softmax", "none")
    bound = prnn.ImageModel(model, params)
    for name, transformed in {
        "ImageModel.compress": bound.compress,
        "ImageModel.complete": lambda x: bound.complete(KEY, x, np.ones(SHAPE, bool)),
        "ImageModel.sample": lambda x: bound.sample(KEY, 2, temperature=x.sum()),
        "ImageModel.sample_and_log_prob": lambda _: bound.sample_and_log_prob(KEY, 2),
    }.items():
        with pytest.raises(prnn.UserError, match=f"{name} needs values: call it outside"):
            jax.jit(transformed)(images)
    with pytest.raises(prnn.UserError, match="make it a static argument of jax.jit"):
        jax.jit(lambda n: model.sample(params, KEY, n))(2)


@pytest.mark.parametrize(
    ("output", "images", "message"),
    [
        ("softmax", np.zeros((2, *SHAPE)), "images must be integers from 0 to 4 .unscaled., got"),
        ("softmax", np.full((2, *SHAPE), 5), "images must have values from 0 to 4, got 5 to 5"),
        ("categorical", np.full((2, *SHAPE), -1), "images must have values from 0 to 4, got -1"),
        ("softmax", np.zeros((2, 4, 4), int), r"shape \[B, 4, 4, 2\], got \[2, 4, 4\]"),
        ("softmax", [[0, 1], [2]], "images must be an array, got list"),
        ("continuous", np.zeros((2, *SHAPE), int), "takes floats from 0 to 5, got int64"),
        ("gaussian_mixture", np.zeros((2, *SHAPE), int), "real values takes floats, got int64"),
        ("gaussian_mixture", np.full((2, *SHAPE), np.nan), "images must have finite values, got N"),
        ("gaussian_mixture", np.full((2, *SHAPE), 1e39), "values, got NaN or infinity as float32"),
    ],
)
def test_images_that_do_not_fit_are_refused(output, images, message):
    model, params, *_ = build("pixel_cnn", output, "none")
    for log_prob in (prnn.ImageModel(model, params).log_prob, lambda x: model.log_prob(params, x)):
        with pytest.raises(prnn.UserError, match=message):
            log_prob(images)


@pytest.mark.parametrize(
    ("condition", "given", "message"),
    [
        ("none", [0, 1], "this model has no condition .model.num_classes and so on.: leave it out"),
        ("class", None, r"needs a condition, classes from 0 to 2, of shape \[2\]"),
        ("class", [0, 3], "condition must be from 0 to 2, got 0 to 3"),
        ("class", [0.0, 1.0], "condition must be integers, classes from 0 to 2, got float64"),
        ("class", [0, 1, 2], r"condition must have shape \[2\], classes from 0 to 2, got \[3\]"),
        ("class", ["oak", "elm"], "there is no class 'elm': the classes of this model have no na"),
        ("vector", np.zeros((2, 4)), r"must have shape \[2, 3\], a vector for each image, got"),
        ("vector", np.full((2, 3), np.inf), "condition must have finite values, got NaN or inf"),
        ("vector", np.full((2, 3), 1e39), "values, got NaN or infinity as float32"),
        ("vector", np.full((2, 3), "a"), "there is no class 'a'"),
        ("map", np.zeros((2, 4, 3, 2)), r"must have shape \[2, 4, 4, 2\], a map for each image"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(condition, given, message):
    model, params, images, _ = build("pixel_cnn", "softmax", condition, count=2)
    bound = prnn.ImageModel(model, params)
    for call in (
        lambda: bound.log_prob(images, given),
        lambda: bound.sample(KEY, 2, given),
        lambda: bound.complete(KEY, images, np.ones(SHAPE, bool), given),
        lambda: bound.compress(images, given),
    ):
        with pytest.raises(prnn.UserError, match=message):
            call()


@pytest.mark.parametrize(
    ("levels", "units", "message"),
    [
        (5, {}, "levels must be 0 for model.output .gaussian_mixture., got 5"),
        (0, dict(scale=(1.0,)), "scale must be a finite number for each of the 2 channels"),
        (0, dict(scale=5.0), "scale must be a finite number for each .*, got 5.0"),
        (0, dict(scale=(1.0, 0.0)), "scale must be greater than 0"),
        (0, dict(offset=(1.0, np.nan)), "offset must be a finite number"),
    ],
)
def test_impossible_units_are_refused(levels, units, message):
    config = prnn.ModelConfig(output="gaussian_mixture", **TINY)
    with pytest.raises(prnn.UserError, match=message):
        prnn.PixelRNN(config, SHAPE, levels, **units)


def test_real_values_are_learned_to_their_entropy():
    """A field in which each value is a part of the one on its left, and noise of two Gaussians."""
    places, widths, part, unit = jnp.array([-1.5, 1.0]), jnp.array([0.3, 0.6]), 0.5, 7.0

    def draw(key, n):
        which, normal = (
            function(each, shape=(n, 2, 3))
            for function, each in zip(
                (jax.random.bernoulli, jax.random.normal), jax.random.split(key), strict=True
            )
        )
        which = which.astype(int)
        noise = places[which] + widths[which] * normal
        columns = [noise[..., 0]]
        for column in range(1, 3):
            columns.append(part * columns[-1] + noise[..., column])
        return 100 + unit * jnp.stack(columns, axis=-1)[..., None]

    def log_density(images):
        values = (images[..., 0] - 100) / unit
        noise = values - part * jnp.pad(values, ((0, 0), (0, 0), (1, 0)))[..., :-1]
        z = (noise[..., None] - places[None, None, None]) / widths[None, None, None]
        log_widths = jnp.log(widths * unit)[None, None, None]
        logs = -z * z / 2 - log_widths - 0.5 * jnp.log(2 * jnp.pi) + jnp.log(0.5)
        return jax.nn.logsumexp(logs, axis=-1).sum((1, 2))

    config = prnn.ModelConfig(
        "row_lstm", layers=1, features=16, output="gaussian_mixture", mixtures=4
    )
    model = prnn.PixelRNN(config, (2, 3, 1), offset=(97.0,), scale=(11.0,))
    params = model.init(KEY)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 600))

    def step(carry, key):
        params, state = carry
        gradient = jax.grad(lambda p: -model.log_prob(p, draw(key, 128)).mean())(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def learn(params):
        keys = jax.random.split(KEY, 600)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    images = draw(jax.random.key(9), 4000)
    # On the same images, whose own deviation from the entropy is of no account then.
    excess = log_density(images) - jax.jit(model.log_prob)(learn(params), images)
    assert 0 < excess.mean() / 6 < 0.02
