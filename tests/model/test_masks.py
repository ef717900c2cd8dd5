"""What each output depends on: the promised sets against the paper, the network against the sets.

`reachability` computes the sets by the architecture's definition; the network's are of gradients.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.dependencies import COLOUR, TALL, check_changes, check_dependencies
from helpers.random_models import ARCHITECTURES, model_and_parameters
from helpers.reachability import allowed, reach, reach_of_coarse

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
@pytest.mark.parametrize("layers", [1, 2])
def test_reach_of_diagonal_bilstm_is_the_past_but_one_blind_value(first_kernel, layers):
    for width in range(1, 11):
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

SLOW = pytest.mark.slow
FEW = "pixel_cnn", *(pytest.param(name, marks=SLOW) for name in ARCHITECTURES[1:])
"""Where the body has no part in what is tested."""
CASES = [
    COLOUR,
    TALL,
    pytest.param(
        dict(image_shape=(3, 6, 2), features=3, layers=2, residual=False, skip=False, kernel=5),
        marks=SLOW,
    ),
    pytest.param(dict(image_shape=(6, 5, 4), features=5, layers=3, skip=False), marks=SLOW),
    pytest.param(dict(image_shape=(7, 1, 3), features=4, layers=1, residual=False), marks=SLOW),
    pytest.param(dict(image_shape=(1, 8, 4), features=8, layers=2), marks=SLOW),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_depend_on_exactly_what_the_architecture_promises(architecture, case):
    check_dependencies(architecture, **case)


@pytest.mark.parametrize("architecture", FEW)
def test_coupled_outputs_see_earlier_pixels_wholly_and_earlier_channels(architecture):
    check_dependencies(architecture, output="coupled_logistic_mixture", mixtures=2, **COLOUR)


@pytest.mark.parametrize("architecture", FEW)
@pytest.mark.parametrize(
    ("image_shape", "ratio", "layers"),
    [((2, 18, 1), 2, 1), pytest.param((3, 27, 2), 3, 1, marks=SLOW)],
)
def test_outputs_see_the_small_image_as_far_as_promised(architecture, image_shape, ratio, layers):
    of_coarse = reach_of_coarse(architecture, image_shape, ratio, layers=layers)
    assert not of_coarse.all()  # There is something not to be seen.
    options = dict(layers=layers, features=4, head_features=5, first_kernel=3)
    check_dependencies(architecture, image_shape, ratio=ratio, **options)


@pytest.mark.parametrize("architecture", FEW)
def test_outputs_change_with_exactly_the_levels_that_the_architecture_promises(architecture):
    check_changes(architecture, **COLOUR)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "options",
    [
        dict(image_shape=(4, 7, 1), condition_map=2),
        pytest.param(dict(image_shape=(4, 6, 3), condition_map=1, ratio=2, layers=2), marks=SLOW),
    ],
)
def test_a_map_is_seen_all_around_and_values_no_further_than_before(architecture, options):
    options = dict(layers=1, features=4, head_features=5, first_kernel=3) | options
    check_dependencies(architecture, **options)


def test_images_of_a_packed_lane_do_not_see_one_another(x64):
    options = dict(features=4, first_kernel=3, images_per_lane=4, dtype="float64")
    model, params = model_and_parameters("diagonal_bilstm", (3, 4, 2), 3, **options)
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 2, (4, 3, 4, 2)))

    @jax.jit
    def seen_images(image):
        gradient = jax.grad(lambda x: model.scales[0].bind(params)(x)[image].sum())(images)
        return (gradient != 0).any((1, 2, 3))

    seen = np.stack([seen_images(image) for image in range(4)])
    np.testing.assert_array_equal(seen, np.eye(4, dtype=bool))
