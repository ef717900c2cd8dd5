"""What the tests of the codec share: few lanes, a model, and images that it has compressed."""

import pytest
from codec_streams import LANES, block_starts, random_images, small_model

from pixel_rnn_jax.codec import coder


@pytest.fixture(scope="package", autouse=True)
def few_lanes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "LANES", LANES)
        yield


@pytest.fixture(scope="package")
def model(few_lanes):
    return small_model()


@pytest.fixture(scope="package")
def stream(model):
    """Eleven images in three blocks."""
    images = random_images(model, 11)
    data = model.compress(images)
    assert len(block_starts(data)) == 3
    return images, data
