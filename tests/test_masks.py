"""What each output depends on, by gradients, against the sets that `reachability` computes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reachability import allowed, reach

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

ARCHITECTURES = ("pixel_cnn", "row_lstm", "diagonal_bilstm")


def random_parameters(model, image_shape, seed):
    """Draws every parameter at random: initial values such as zero biases would hide paths.

    Biases are mostly positive, so that few ReLUs are dead.
    """
    inputs = jax.random.key(0), jnp.zeros((1, *image_shape))
    return random_like(jax.eval_shape(model.init, *inputs)["params"], seed)


def random_like(shapes, seed):
    """Draws parameters of given shapes."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        mean, fan_in = (2, 1) if leaf.ndim == 1 else (0, np.prod(leaf.shape[:-1]))
        return jnp.asarray(random.normal(mean, fan_in**-0.5, size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)


def dependencies(config, image_shape, levels, promised):
    """Returns where some draw's gradient is not exactly zero, bool [H, W, C, H, W, C].

    The first three axes are the output: a random combination of the K logits of one (row, column,
    channel). The last three are the input. In float64, so that no small gradient is lost.

    There are at least four draws of the parameters. What is `promised` and still not seen has more
    draws to show itself, since ReLUs hide some paths in each of them.
    """
    size = int(np.prod(image_shape))
    with jax.enable_x64(True):
        model = PixelRNN(config, image_shape, levels)
        # The batch is one copy of the image for each output, so that one pass gives all gradients.
        # (A vmap over cotangents would as well, but on CPUs with AVX-512 the XLA of JAX 0.10 gives
        # wrong float64 gradients for that of some scans.)
        output = jnp.eye(size).reshape(size, *image_shape, 1)

        @jax.jit
        def depends(params, image, weights):
            images = jnp.broadcast_to(image, (size, *image_shape))
            logits, pull = jax.vjp(lambda x: model.apply({"params": params}, x), images)
            weights = weights[: logits.shape[-1]].reshape(1, 1, 1, 1, -1)
            return pull(output * weights)[0] != 0

        seen = np.zeros_like(promised)
        for draw in range(60):
            random = np.random.default_rng(draw)
            params = random_parameters(model, image_shape, seed=draw)
            image = jnp.asarray(random.uniform(-1, 1, (1, *image_shape)))
            weights = jnp.asarray(random.normal(size=levels))
            seen |= np.asarray(depends(params, image, weights)).reshape(seen.shape)
            if draw >= 3 and not (promised & ~seen).any():
                break
    return seen


def check_dependencies(config, image_shape, *, levels=3):
    """Asserts that every output depends on exactly the inputs that the architecture promises."""
    promised = reach(
        config.architecture,
        image_shape,
        layers=config.layers,
        first_kernel=config.first_kernel,
        kernel=config.kernel,
    )
    seen = dependencies(config, image_shape, levels, promised)
    complaints = [
        f"output {pair[:3]} {verb} input {pair[3:]}"
        for verb, wrong in [("sees", seen & ~promised), ("misses", promised & ~seen)]
        for pair in np.argwhere(wrong).tolist()
    ]
    assert not complaints, "\n".join(complaints)


# The sets themselves, against what the paper says of them.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layers", [1, 3])
def test_reach_is_within_the_past(architecture, channels, layers):
    shape = (5, 6, channels)
    assert not (reach(architecture, shape, layers=layers) & ~allowed(shape)).any()


def test_past_is_raster_order_then_channel_order():
    past = allowed((2, 2, 3))
    assert past[0, 1, 1].reshape(-1).tolist() == [True] * 4 + [False] * 8


@pytest.mark.parametrize("first_kernel", [3, 7])
@pytest.mark.parametrize("width", range(1, 11))
@pytest.mark.parametrize("layers", [1, 2])
def test_reach_of_diagonal_bilstm_is_the_past_but_one_blind_value(first_kernel, width, layers):
    shape = (3, width, 2)
    expected = allowed(shape)
    for r, c in itertools.product(range(1, 3), range(max(0, width - 1 - first_kernel // 2))):
        expected[r, c, :, r - 1, -1, -1] = False
    seen = reach("diagonal_bilstm", shape, layers=layers, first_kernel=first_kernel)
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_reach_of_row_lstm_is_a_triangle_that_layers_widen_on_its_left(kernel, layers):
    shape, half = (5, 13, 2), kernel // 2
    up, right = _offsets(shape)
    within = (-right <= 3 + half * (up + layers)) & ((up == 0) | (right <= 3 + half * (up - 1)))
    seen = reach("row_lstm", shape, layers=layers, kernel=kernel)
    np.testing.assert_array_equal(seen, allowed(shape) & within)


@pytest.mark.parametrize("kernel", [3, 5])
def test_reach_of_deep_pixel_cnn_is_the_past_but_a_blind_spot_on_its_right(kernel):
    shape = (5, 13, 2)
    up, right = _offsets(shape)
    blind = (up > 0) & (right > 3 + kernel // 2 * (up - 1))
    seen = reach("pixel_cnn", shape, layers=13, kernel=kernel)
    np.testing.assert_array_equal(seen, allowed(shape) & ~blind)
    assert blind.any()


def _offsets(shape):
    """Returns how far an input lies above and to the right of an output."""
    r, c, _, r_in, c_in, _ = np.indices((*shape, *shape))
    return r - r_in, c_in - c


# The network against the sets.

COVERING = [
    ((9, 10, 3), {"features": 5, "layers": 2, "levels": 2}),
    ((5, 4, 2), {"features": 5, "layers": 2, "skip": False, "kernel": 5, "first_kernel": 5}),
    ((3, 6, 4), {"features": 5, "layers": 3, "residual": False, "first_kernel": 3}),
    ((4, 7, 1), {"features": 3, "layers": 3, "residual": False, "skip": False, "first_kernel": 3}),
    ((7, 1, 3), {"features": 4, "layers": 1, "skip": False, "first_kernel": 3}),
    ((1, 8, 4), {"features": 8, "layers": 2, "residual": False, "skip": False}),
]


@pytest.mark.parametrize(("image_shape", "options"), COVERING)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_depend_on_exactly_what_the_architecture_promises(
    architecture, image_shape, options
):
    options = dict(options)
    levels = options.pop("levels", 3)
    check_dependencies(model_config(architecture, **options), image_shape, levels=levels)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "first_kernel", "kernel"), [(9, 10, 7, 3), (6, 5, 3, 5)]
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.slow
def test_outputs_depend_on_exactly_what_the_architecture_promises_in_every_combination(
    architecture, channels, height, width, first_kernel, kernel, layers, residual, skip
):
    config = model_config(
        architecture,
        features=5,
        layers=layers,
        first_kernel=first_kernel,
        kernel=kernel,
        residual=residual,
        skip=skip,
    )
    check_dependencies(config, (height, width, channels))


def test_images_of_a_packed_lane_do_not_see_one_another(x64):
    config = model_config("diagonal_bilstm", features=4, layers=2, first_kernel=3, pack=4)
    image_shape = (3, 4, 2)
    model = PixelRNN(config, image_shape, 3)
    params = random_parameters(model, image_shape, seed=0)
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, *image_shape)))

    @jax.jit
    def seen_images(image):
        gradient = jax.grad(lambda x: model.apply({"params": params}, x)[image].sum())(images)
        return (gradient != 0).any((1, 2, 3))

    seen = np.stack([seen_images(image) for image in range(4)])
    np.testing.assert_array_equal(seen, np.eye(4, dtype=bool))


def model_config(architecture, **options):
    return ModelConfig(architecture=architecture, head_features=12, dtype="float64", **options)
