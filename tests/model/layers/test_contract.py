"""What every body, and the layers on docs/layers.md, promise: `layers.body`."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import ROOT
from helpers.random_models import random_like
from helpers.reachability import body_reach
from jax.sharding import PartitionSpec

from pixel_rnn_jax.model.layers import BODIES, LinearRNN, MaskedConv, PixelCNNLayer, Stack, check
from pixel_rnn_jax.model.layers.body import CausalMap
from pixel_rnn_jax.system import devices

PAGE = ROOT / "docs" / "layers.md"
BATCH, HEIGHT, WIDTH, FEATURES, GROUPS, CONDITION = 3, 4, 5, 4, 3, 2


def page_layer(name, old="", new=""):
    """A layer of docs/layers.md, with some text of the page changed."""
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names = {"__name__": "layers"}
    for block in code[:2]:
        text = block.partition("\nprnn.layers.BODIES")[0]
        exec(text.replace(old, new) if old else text, names)
    return names[name]


class Default(LinearRNN):
    """The incremental form that needs nothing but the map."""

    context, init_state = CausalMap.context, CausalMap.init_state
    step, end_row = CausalMap.step, CausalMap.end_row
    narrow = False


@pytest.mark.parametrize("name", [*BODIES, "default", "attention"])
def test_a_body_keeps_the_contract_and_sees_all_it_should(name):
    """All groups of other pixels in its reach; of its own pixel the groups up to its own."""
    layers = {"default": Default, "attention": page_layer("Attention")}
    sees = check(functools.partial(Stack, layer=layers[name], layers=1) if name in layers else name)
    shape = HEIGHT, WIDTH, GROUPS
    own = np.eye(np.prod(shape), dtype=bool).reshape(*shape, *shape)
    sets = body_reach(name, own, np.zeros((HEIGHT, WIDTH, *shape), bool), layers=2)
    group = np.arange(2 * FEATURES) * GROUPS // (2 * FEATURES)
    np.testing.assert_array_equal(sees, sets[:, :, group][..., group])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("down > 0", "down >= 0", "row 0, column 0, feature 0 sees row 0, column 0, feature 3"),
        ("MaskedConv(2 * h, h, groups", "MaskedConv(2 * h, h, 1", "feature 0 sees .* feature 3"),
        ("def end_row(", "def unused(", "incremental form"),
        ("query @ keys.mT", "lax.stop_gradient(query) @ keys.mT", "gradient"),
    ],
)
def test_check_names_a_leak_in_attention(old, new, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check(page_layer("Attention", old, new))


@pytest.mark.parametrize(("residual", "skip"), [(True, True), (False, True), (True, False)])
def test_a_stack_adds_its_input_and_all_layers(residual, skip, x64):
    """Figure 5: the head sees the last stream, which began with the first convolution's."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, HEIGHT, WIDTH, 2 * FEATURES)))
    stack = Stack(
        FEATURES,
        1,
        layer=PixelCNNLayer,
        layers=2,
        residual=residual,
        skip=skip,
        param_dtype=jnp.float64,
    )
    params = random_like(jax.eval_shape(stack.init, jax.random.key(0), x), seed=0)
    bound, expected, skips = stack.bind(params), x, 0
    for layer, connection in zip(bound.body, bound.connections, strict=True):
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


@pytest.mark.parametrize("name", BODIES)
def test_several_devices_compute_what_one_does(name, x64):
    random, shape, float64 = np.random.default_rng(0), (BATCH, HEIGHT, WIDTH), jnp.float64
    inputs = random.normal(size=(*shape, 2 * FEATURES)), random.normal(size=(*shape, CONDITION))
    types = dict(dtype=float64, param_dtype=float64)
    body = BODIES[name](FEATURES, GROUPS, CONDITION, layers=1, **types)
    params = random_like(jax.eval_shape(body.init, jax.random.key(0), *inputs), seed=0)
    mesh, split = devices.make_mesh(BATCH), PartitionSpec(devices.AXIS)

    def values_and_gradient(params, x, condition):
        def loss(params):
            out = body.apply(params, x, condition)
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
