"""What the tests of the codec share: small groups, a model, and images that it has compressed."""

import pytest
from helpers.codec_streams import block_starts, in_small_groups, random_images, small_model

from pixel_rnn_jax.codec import loop


@pytest.fixture(scope="module", autouse=True)  # "package" would be for all tests after it.
def small_groups():
    with pytest.MonkeyPatch.context() as patch:
        in_small_groups(patch.setattr)
        yield


@pytest.fixture(scope="session")
def model():
    return small_model()


@pytest.fixture(scope="session")
def stream(model):
    """Eleven images in three blocks."""
    images = random_images(model, 11)
    with pytest.MonkeyPatch.context() as patch:
        in_small_groups(patch.setattr)
        data = model.compress(images)
    assert len(block_starts(data)) == 4
    return images, data


@pytest.fixture
def new_loops():
    """Compiles loops anew in a test that changes what they compute, and after it."""

    def clear():
        loop._compiled.cache_clear()
        loop._compiled_maps.cache_clear()

    clear()
    yield
    clear()
