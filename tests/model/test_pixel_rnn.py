"""The functional interface: pure functions that JAX transforms, for every kind of model."""

import copy
import dataclasses
import functools
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import ARCHITECTURES, assert_trees_close, random_batch, tiny_model
from jax import export
from jax.sharding import PartitionSpec

import pixel_rnn_jax as prnn
from pixel_rnn_jax.system import devices

KEY = jax.random.key(2)
SHAPE = (4, 4, 2)
UPPER = np.arange(4)[:, None].repeat(4, axis=1) < 2
UNITS = dict(mean=(3.0, -2.0), std=(2.0, 0.5))
OUTPUTS = {
    "sigmoid": (2, {}),
    "softmax": (5, {}),
    "categorical": (5, dict(input="categorical")),
    "discretized_logistic_mixture": (5, dict(output="discretized_logistic_mixture", mixtures=2)),
    "coupled_logistic_mixture": (5, dict(output="coupled_logistic_mixture", mixtures=2)),
    "logistic_mixture": (5, dict(output="logistic_mixture", mixtures=2)),
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
CASES = [  # Each output and each condition twice, where they go together; each architecture.
    (ARCHITECTURES[(i + j) % len(ARCHITECTURES)], output, condition)
    for (i, output), (j, condition) in itertools.product(enumerate(OUTPUTS), enumerate(CONDITIONS))
    if (j - i) % 7 in (2, 5) and (output, condition) != ("gaussian_mixture", "scales")
]
QUICK = "logistic_mixture", "map"


def build(architecture, output, condition="none", *, count=3, **options):
    """A model, parameters, images and their condition."""
    levels, of_output = OUTPUTS[output]
    options = of_output | CONDITIONS[condition] | options
    units = {} if levels else UNITS
    model = tiny_model(architecture, SHAPE, levels, units=units, **options)
    return model.pixel_rnn, model.params, *random_batch(model.pixel_rnn, count)


@pytest.mark.parametrize(
    ("architecture", "output", "condition"),
    [pytest.param(*case, marks=() if case[1:] == QUICK else pytest.mark.slow) for case in CASES],
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
    random = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), floats)

    def log_probs(floats):
        arguments = whole | floats
        return model.log_prob(arguments["params"], arguments["images"], arguments["condition"])

    def one(params, image, condition):
        rows = jax.tree.map(lambda x: x[None], (image, condition))
        return model.log_prob(params, *rows)[0]

    @jax.jit
    def measure(floats):
        def moved(step):
            return log_probs(jax.tree.map(lambda x, d: x + step * d, floats, direction))

        values = jax.lax.map(moved, jnp.array([1e-6, -1e-6, 0]))
        gradient = jax.grad(lambda floats: log_probs(floats).sum())(floats)
        rows = jax.vmap(jax.value_and_grad(one), (None, 0, 0))(params, images, given)
        return values, gradient, rows

    (above, below, values), gradient, (row_values, row_gradients) = measure(floats)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    assert abs(slope) > 1e-2
    np.testing.assert_allclose((above - below).sum() / 2e-6, slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(row_values, values, rtol=1e-10)
    row_gradients = jax.tree.map(lambda rows: rows.sum(0), row_gradients)
    assert_trees_close(row_gradients, gradient["params"], 1e-6, 1e-9)


@pytest.mark.slow
def test_shards_of_a_batch_give_what_the_whole_batch_gives():
    model, params, images, given = build("diagonal_bilstm", "softmax", "map", count=4)
    mesh = devices.local_mesh(2)
    whole, split = PartitionSpec(), PartitionSpec(devices.AXIS)
    known = np.random.default_rng(1).random(images.shape) < 0.5

    def run(params, images, known, given, first):
        def loss(params):
            return -model.log_prob(params, images, given).sum()

        nats, gradient = jax.value_and_grad(loss)(params)
        sampled = model.sample_and_log_prob(params, KEY, len(images), given, first=first[0])
        options = dict(particles=3, first=first[0])
        completed = model.complete(params, KEY, images, known, given, **options)
        return (nats[None], gradient), (sampled, completed)

    arguments = images, known, given, np.arange(4)
    expected = jax.jit(run)(params, *arguments)
    # JAX checks what varies over the mesh, and so adds up the gradient of what does not.
    sharded = jax.shard_map(
        run, mesh=mesh, in_specs=(whole, *[split] * 4), out_specs=((split, whole), split)
    )
    (nats, gradient), drawn = jax.jit(sharded)(params, *arguments)
    np.testing.assert_allclose(nats.sum(), expected[0][0].sum(), rtol=1e-5)
    assert_trees_close((gradient, drawn), (expected[0][1], expected[1]), 1e-3, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exported_programs_take_any_batch_size(architecture):
    model, params, images, given = build(architecture, "softmax", "class", count=6)
    (batch,) = export.symbolic_shape("batch")
    shapes = (
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params),
        jax.ShapeDtypeStruct((batch, *SHAPE), jnp.uint8),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    functions = {
        "log_prob": model.log_prob,
        "gradient": jax.grad(lambda *arguments: model.log_prob(*arguments).sum()),
        "sample": lambda p, images, given: model.sample(p, KEY, given.shape[0], given),
        "complete": lambda p, x, given: model.complete(p, KEY, x, UPPER, given).images,
    }
    arguments = images.astype(np.uint8), given.astype(np.int32)
    for name, function in functions.items():
        compiled = jax.jit(function)
        served, expected = export.export(compiled)(*shapes), compiled(params, *arguments)
        if name == "gradient":
            assert_trees_close(served.call(params, *arguments), expected, 1e-3, 1e-4)
            continue
        for count in (1, 6):  # An image depends on its number alone.
            result = served.call(params, *(rows[:count] for rows in arguments))
            tolerance = 1e-4 if name == "log_prob" else 0
            np.testing.assert_allclose(result, expected[:count], rtol=tolerance)


def test_no_images():
    model, params, images, given = build("diagonal_bilstm", "categorical", "class")
    none, given = images[:0], given[:0]
    assert jax.jit(model.log_prob)(params, none, given).shape == (0,)
    assert jax.jit(model.conditionals)(params, none, given).shape == (0, *SHAPE, 5)
    assert jax.jit(model.sample, static_argnums=2)(params, KEY, 0, given).shape == none.shape
    complete = jax.jit(model.complete, static_argnames="particles")
    for particles in (1, 2):
        done = complete(params, KEY, none, np.ones(SHAPE, bool), given, particles=particles)
        assert done.images.shape == none.shape


def test_completed_values_and_numbers_of_numpy_keep_their_range():
    """Of images whose type could not hold all levels."""
    shape = (2, 2, 2)
    model = tiny_model("pixel_cnn", shape, np.int64(1000))
    plain = tiny_model("pixel_cnn", shape, 1000).pixel_rnn
    assert model.pixel_rnn == plain and type(model.pixel_rnn.levels) is int
    model, params, nothing = model.pixel_rnn, model.params, np.zeros(shape, bool)
    small, large = np.zeros((3, *shape), np.uint8), np.full((3, *shape), 2**32 + 1)

    @jax.jit
    def draw(params):
        completions = [model.complete(params, KEY, x, nothing).images for x in (small, large)]
        return [model.sample(params, KEY, 3), *completions]

    images, *completed = draw(params)
    assert images.max() > 255
    for same in completed:
        np.testing.assert_array_equal(same, images)
    with pytest.raises(prnn.UserError, match="images"):
        model.complete(params, KEY, large, ~nothing)


def test_a_temperature_may_be_an_array_and_x64_changes_no_sample():
    model, params, *_ = build("pixel_cnn", "softmax")
    half = jnp.float32(0.5)
    images = jax.jit(lambda key: model.sample(params, key, 3, temperature=half))(KEY)
    with jax.enable_x64(True):
        samples = model.sample(params, KEY, 3, temperature=0.5)
    np.testing.assert_array_equal(samples, images)
    assert samples.dtype == images.dtype
    for wrong in (jnp.ones(3), jnp.array(True)):  # Also where it has no value yet.
        with pytest.raises(prnn.UserError, match="temperature"):
            jax.jit(lambda t: model.sample(params, KEY, 3, temperature=t))(wrong)


def test_models_can_be_compared_pickled_and_copied_and_take_names_of_classes():
    one, twin = (prnn.PixelRNN(prnn.ModelConfig(), shape, 2) for shape in ((4, 4, 1), [4, 4, 1]))
    assert one == twin and hash(one) == hash(twin)
    assert one != prnn.PixelRNN(prnn.ModelConfig(features=8), (4, 4, 1), 2)
    model, params, images, given = build("row_lstm", "gaussian_mixture", "class")
    names = ("ash", "birch", "cedar")
    bound = prnn.ImageModel(model, params, names)
    nats = bound.log_prob(images, given)
    for twin in (pickle.loads(pickle.dumps(bound)), copy.deepcopy(bound), copy.copy(bound)):
        assert twin.pixel_rnn == model and hash(twin.pixel_rnn) == hash(model)
        np.testing.assert_array_equal(twin.log_prob(images, [names[i] for i in given]), nats)
    with pytest.raises(prnn.UserError, match="condition"):
        bound.log_prob(images, np.array(names)[:, None])


def test_one_channel_may_be_left_out():
    model = tiny_model("pixel_cnn", (4, 4, 1))
    images = np.random.default_rng(0).integers(3, size=(3, 4, 4, 1))
    flat, known = images[..., 0], np.arange(16).reshape(4, 4) < 8
    np.testing.assert_array_equal(model.log_prob(flat), model.log_prob(images))
    np.testing.assert_array_equal(model.decompress(model.compress(flat)), images)
    done = model.complete(KEY, flat, known).images
    np.testing.assert_array_equal(done, model.complete(KEY, images, known).images)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_derivatives_in_reverse_mode_and_of_second_order(architecture):
    """Curvature in one direction is the difference of slopes; JAX refuses forward mode."""
    model, params, images, _ = build(architecture, "gaussian_mixture", count=1)
    images = jnp.asarray(images, jnp.float32)

    def along(distance):
        return model.log_prob(params, images + distance * direction).sum()

    direction = jax.random.normal(KEY, images.shape)
    slope = jax.jit(jax.grad(along))
    np.testing.assert_allclose(jax.jacrev(along)(0.0), slope(0.0), rtol=1e-5)
    step = 4e-3  # No ReLU of the head changes its sign so near.
    curvature = (slope(step) - slope(-step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.hessian(along))(0.0), curvature, rtol=0.02)
    if "pixel_cnn" not in architecture:  # They have no rules of their own.
        with pytest.raises(TypeError):
            jax.jacfwd(along)(0.0)


def test_the_density_of_real_values_is_per_their_unit():
    model, params, images, _ = build("pixel_cnn", "gaussian_mixture")
    standard = prnn.PixelRNN(model.config, SHAPE)
    values = (images - np.array(UNITS["mean"])) / np.array(UNITS["std"])
    found, of_values = jax.jit(model.log_prob)(params, images), jax.jit(standard.log_prob)
    expected = of_values(params, values) - 16 * np.log(UNITS["std"]).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


TAKES = {
    "log_prob": ("images", "condition"),
    "conditionals": ("images", "condition"),
    "sample": ("key", "n", "condition", "temperature"),
    "complete": ("key", "images", "known", "condition", "particles"),
}
REFUSED = [
    ("log_prob", "softmax", "none", "images", np.zeros((2, *SHAPE))),
    ("log_prob", "softmax", "none", "images", np.full((2, *SHAPE), 5)),
    ("log_prob", "categorical", "none", "images", np.full((2, *SHAPE), -1)),
    ("log_prob", "softmax", "none", "images", np.zeros((2, 4, 4), int)),
    ("log_prob", "logistic_mixture", "none", "images", np.zeros((2, *SHAPE), int)),
    ("log_prob", "gaussian_mixture", "none", "images", np.zeros((2, *SHAPE), int)),
    ("log_prob", "gaussian_mixture", "none", "images", np.full((2, *SHAPE), np.nan)),
    ("log_prob", "gaussian_mixture", "none", "images", np.full((2, *SHAPE), 1e39)),
    ("conditionals", "softmax", "none", "images", np.full((2, *SHAPE), 5)),
    ("log_prob", "softmax", "none", "condition", [0, 1]),
    ("sample", "softmax", "class", "condition", None),
    ("complete", "softmax", "class", "condition", [0, 3]),
    ("log_prob", "softmax", "class", "condition", [0.0, 1.0]),
    ("log_prob", "softmax", "class", "condition", ["oak", "elm"]),
    ("sample", "softmax", "vector", "condition", np.zeros((2, 4))),
    ("complete", "softmax", "vector", "condition", np.full((2, 3), np.inf)),
    ("complete", "softmax", "map", "condition", np.zeros((2, 4, 3, 2))),
    ("sample", "softmax", "none", "n", -1),
    ("sample", "softmax", "none", "n", 2.0),
    ("sample", "softmax", "none", "temperature", float("nan")),
    ("sample", "gaussian_mixture", "none", "temperature", 0.5),
    ("complete", "softmax", "none", "known", np.array(True)),
    ("complete", "softmax", "none", "known", np.ones((4, 4))),
    ("complete", "softmax", "none", "known", np.ones((2, 4), bool)),
    ("complete", "softmax", "none", "particles", 0),
]


@pytest.mark.parametrize(("method", "output", "condition", "name", "value"), REFUSED)
def test_impossible_arguments_are_named(method, output, condition, name, value):
    model, params, images, given = build("pixel_cnn", output, condition, count=2)
    possible = dict(images=images, condition=given, known=UPPER, key=KEY, n=2)
    arguments = possible | dict(particles=1, temperature=1.0) | {name: value}
    arguments = {taken: arguments[taken] for taken in TAKES[method]}
    bound = prnn.ImageModel(model, params)
    for call in (getattr(bound, method), functools.partial(getattr(model, method), params)):
        with pytest.raises(prnn.UserError, match=f"{name} "):
            call(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", 5),
        ("image_shape", (4, 4)),
        ("image_shape", (4, 0, 2)),
        ("std", (1.0,)),
        ("std", (1.0, 0.0)),
        ("mean", (1.0, np.nan)),
    ],
)
def test_impossible_formats_are_refused(name, value):
    config = prnn.ModelConfig(output="gaussian_mixture")
    with pytest.raises(prnn.UserError, match=name):
        prnn.PixelRNN(config, **dict(image_shape=SHAPE) | {name: value})


@pytest.mark.parametrize(("architecture", "kernel"), [("linear_rnn", 5), ("plain", 3)])
def test_a_field_that_the_body_lacks_is_refused_by_name(architecture, kernel, monkeypatch):
    class Plain(prnn.layers.Body):
        __call__ = prnn.layers.Body.__call__

    monkeypatch.setitem(prnn.layers.BODIES, "plain", Plain)
    config = prnn.ModelConfig(architecture, kernel=kernel, remat=True)
    with pytest.raises(prnn.UserError, match=rf"model\.(kernel|remat) .*{architecture}"):
        prnn.PixelRNN(config, SHAPE, levels=2)
    scales = dict(scales=(2, 4), scale_architectures=("row_lstm", architecture))
    assert prnn.PixelRNN(dataclasses.replace(config, **scales), SHAPE, levels=2).scales
