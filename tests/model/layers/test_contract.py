"""What every layer and body, and the layers on docs/layers.md, promise: `layers.body`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import ROOT
from helpers.random_models import random_like
from helpers.reachability import body_reach
from jax.sharding import PartitionSpec

from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.layers import BODIES, LAYERS, MaskedConv, Stack
from pixel_rnn_jax.model.layers.body import Body, CausalMap
from pixel_rnn_jax.system import devices

pytestmark = pytest.mark.usefixtures("x64")
PAGE = ROOT / "docs" / "layers.md"
BATCH, HEIGHT, WIDTH, FEATURES, GROUPS, CONDITION = 3, 4, 5, 4, 3, 2
NAMES = [*LAYERS, *BODIES, "GatedRow"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def layer(name):
    """A layer or a body, with features that the groups do not divide."""
    class_, sizes = (LAYERS | BODIES).get(name), dict(layers=2) if name in BODIES else {}
    if class_ is None:
        code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        names = {"__name__": "layers"}
        for block in code[:2]:
            exec(block.partition("\nprnn.layers.LAYERS")[0], names)
        class_ = names[name]
    float64 = dict(dtype=jnp.float64, param_dtype=jnp.float64)
    return class_(features=FEATURES, mask_groups=GROUPS, condition=CONDITION, **float64, **sizes)


@pytest.fixture
def inputs():
    random = np.random.default_rng(0)
    shape = BATCH, HEIGHT, WIDTH
    return random.normal(size=(*shape, 2 * FEATURES)), random.normal(size=(*shape, CONDITION))


@pytest.fixture
def params(layer, inputs):
    shapes = jax.eval_shape(layer.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda x: x / 2, random_like(shapes, seed=0))


def test_incremental_form_is_the_whole_map(name, layer, inputs, params):
    x, condition = inputs

    def rows(params, methods):
        bound = layer.bind(params)
        state, outputs = methods.init_state(bound, BATCH, HEIGHT, WIDTH), []
        for row in range(HEIGHT):
            context = methods.context(bound, condition[:, row])
            for column in range(WIDTH):
                # A step may be repeated with other values of the pixel.
                _, _ = methods.step(bound, state, x[:, row, column] + 1, column, context)
                out, state = methods.step(bound, state, x[:, row, column], column, context)
                outputs.append(out)
            state = methods.end_row(bound, state, context)
        return jnp.stack(outputs, axis=1).reshape(BATCH, HEIGHT, WIDTH, -1)

    whole = jax.jit(layer.apply)(params, x, condition)
    features = FEATURES * (2 if isinstance(layer, Body) else 1)
    assert whole.shape == (BATCH, HEIGHT, WIDTH, features)
    # The default form knows of a layer that it is a causal map, and no more.
    for methods in (type(layer), CausalMap) if name == "row_lstm" else (type(layer),):
        found = jax.jit(rows, static_argnums=1)(params, methods)
        np.testing.assert_allclose(found, whole, rtol=0, atol=1e-12)


def test_outputs_see_exactly_what_they_should(name, layer, inputs, params):
    """All groups of other pixels in it; of their own pixel the groups up to their own."""
    jacobian = jax.jit(jax.jacrev(lambda x, p: layer.apply(p, x, inputs[1][:1])))
    seen = 0
    for seed in range(20):  # A ReLU may hide an input from some draws.
        x = np.random.default_rng(seed).normal(0.5, size=(1, HEIGHT, WIDTH, 2 * FEATURES))
        seen = seen + np.abs(jacobian(x, random_like(params, seed))[0, ..., 0, :, :, :])
    shape = HEIGHT, WIDTH, GROUPS
    own = np.eye(np.prod(shape), dtype=bool).reshape(*shape, *shape)
    nothing = np.zeros((HEIGHT, WIDTH, *shape), bool)
    if name == "GatedRow":  # What its convolution and its recurrence see.
        sets = body_reach("pixel_cnn", own, nothing)
        for column in range(1, WIDTH):
            sets[:, column] |= sets[:, column - 1].any(1, keepdims=True)
    else:
        sets = body_reach(name, own, nothing, layers=2 if name in BODIES else 1)
    group_out, group_in = (np.arange(n) * GROUPS // n for n in (seen.shape[2], 2 * FEATURES))
    np.testing.assert_array_equal(seen > 0, sets[:, :, group_out][..., group_in])


@pytest.mark.parametrize(("residual", "skip"), [(True, True), (False, True), (True, False)])
def test_a_stack_adds_its_input_and_all_layers(residual, skip):
    """Figure 5: the head sees the last stream, which began with the first convolution's."""
    config = ModelConfig("pixel_cnn", layers=2, residual=residual, skip=skip)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, HEIGHT, WIDTH, 2 * FEATURES)))
    stack = Stack(FEATURES, 1, layer=LAYERS["pixel_cnn"], config=config, param_dtype=jnp.float64)
    params = random_like(jax.eval_shape(stack.init, jax.random.key(0), x), seed=0)
    bound, expected, skips = stack.bind(params), x, 0
    for layer, connection in zip(bound.body, bound.residual, strict=True):
        own = connection.expand(layer(expected))
        stream, *own = np.split(np.asarray(own), 2 if skip else 1, axis=-1)
        expected, skips = stream + (expected if residual else 0), skips + sum(own)
    np.testing.assert_allclose(stack.apply(params, x), expected + skips, rtol=1e-6)


@pytest.mark.parametrize("kernel_size", [(1, 1), (7, 7)])
def test_a_new_convolution_keeps_the_variance(kernel_size):
    conv = MaskedConv(64, 64, 1, kernel_size=kernel_size)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16, 64)), jnp.float32)
    out, _ = conv.init_with_output(jax.random.key(0), x)
    assert 0.85 < out[:, 4:, 4:-4].std() < 1.15


def test_gradients_are_finite_differences(layer, inputs, params):
    random = np.random.default_rng(1)
    weights = random.normal(size=jax.eval_shape(layer.apply, params, *inputs).shape)
    arguments = params, *inputs
    directions = jax.tree.map(lambda x: random.normal(size=x.shape), arguments)

    @jax.jit
    def along(step):
        p, x, condition = jax.tree.map(lambda a, d: a + step * d, arguments, directions)
        return (layer.apply(p, x, condition) * weights).sum()

    step = 1e-6
    slope = (along(step) - along(-step)) / (2 * step)
    gradient = jax.jit(jax.grad(lambda a: (layer.apply(*a) * weights).sum()))(arguments)
    products = jax.tree.map(lambda g, d: (g * d).sum(), gradient, directions)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-6)


def test_several_devices_compute_what_one_does(layer, inputs, params):
    mesh, split = devices.make_mesh(BATCH), PartitionSpec(devices.AXIS)

    def values_and_gradient(params, x, condition):
        def loss(params):
            out = layer.apply(params, x, condition)
            return (out**2).sum(), out

        return jax.value_and_grad(loss, has_aux=True)(params)

    def of_device(*arguments):
        (loss, out), gradient = values_and_gradient(*arguments)
        return jax.lax.psum((loss, gradient), devices.AXIS), out

    whole = PartitionSpec()
    specs = dict(in_specs=(whole, split, split), out_specs=((whole, whole), split))
    mapped = jax.jit(jax.shard_map(of_device, mesh=mesh, check_vma=False, **specs))
    (loss, gradient), out = mapped(params, *inputs)
    (expected, outputs), of_one = jax.jit(values_and_gradient)(params, *inputs)
    np.testing.assert_allclose(out, outputs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), gradient, of_one)
