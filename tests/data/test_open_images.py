"""A user's own images for a trained model, and arrays in memory for `fit`."""

import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax import data
from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.config import Config
from pixel_rnn_jax.runs.source import open_split
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.training.fit import array_splits

LABELS = np.array(["emu", "ape", "emu", "cat", "ape", "emu"])
VECTORS = np.random.default_rng(0).normal(size=(6, 2))


@pytest.fixture
def images(pictures):
    return pictures(6, 4, 5, 3, below=3)


@pytest.fixture
def own(tmp_path):
    """Opens arrays, or a path, for a model that is never initialised."""

    def open_images(what, split=None, names=(), shape=(4, 5, 3), levels=3, **config):
        if isinstance(what, dict):
            np.savez(tmp_path / "own.npz", **what)
            what = tmp_path / "own.npz"
        model = PixelRNN(ModelConfig("pixel_cnn", **config), shape, levels)
        return data.own_images(what, split, model, names)

    return open_images


def everything(split):
    return split.batch(np.arange(len(split)))


def test_levels_are_taken_as_they_are_stored(tmp_path, own, images):
    (tmp_path / "set" / "b").mkdir(parents=True)
    for name, image in zip(("a.png", "b/c.png", "d.bmp"), images, strict=False):
        Image.fromarray(image).save(tmp_path / "set" / name)
    split = own(tmp_path / "set")
    np.testing.assert_array_equal(everything(split).images, images[:3])
    assert everything(split).images.dtype == np.uint8 and everything(split).condition is None
    assert list(split.file_names) == split.dataset.names() == ["a.png", "b/c.png", "d.bmp"]
    split = own({"x": images.astype(np.int64)}, "all[2:]", levels=300)
    assert everything(split).images.dtype == np.uint16 and split.dataset.names() == list("2345")


def test_a_density_of_levels_gets_the_noise_of_evaluation(own, images, tmp_path):
    noisy = everything(own({"x": images}, output="logistic_mixture")).images
    assert noisy.dtype == np.float32 and (noisy > images).any()
    settings = DataConfig(str(tmp_path / "own.npz"), levels=3)
    split = open_split(Config(ModelConfig(output="logistic_mixture"), settings), "all")
    np.testing.assert_array_equal(noisy, everything(split).images)


def test_rgb_of_equal_channels_is_grey(own, images, capsys):
    grey = images[..., :1]
    split = own({"x": np.tile(grey, 3)}, shape=(4, 5, 1))
    np.testing.assert_array_equal(everything(split).images, grey)
    assert "taken as grey" in capsys.readouterr().err
    with pytest.raises(UserError, match="colours"):
        everything(own({"x": images}, shape=(4, 5, 1)))


def test_conditions(own, images):
    arrays = {"x": images, "labels": LABELS, "condition": VECTORS}
    # By the names of the model, whose numbers differ from those of the file.
    split = own(arrays, num_classes=4, names=("emu", "dog", "cat", "ape"))
    assert everything(split).condition.tolist() == [0, 3, 0, 2, 3, 0]
    vectors = everything(own(arrays, condition_vector=2)).condition
    np.testing.assert_array_equal(vectors, np.float32(VECTORS))
    split = own({"x": images, "labels": np.arange(6)}, num_classes=6, names=tuple("abcdef"))
    assert everything(split).condition.tolist() == list(range(6))


@pytest.mark.parametrize(
    "change, config, parts",
    [
        (lambda x: x.transpose(0, 3, 1, 2), {}, ("own.npz", "5 channels", "takes 3")),
        (lambda x: np.where(x > 1, 3, x), {}, ("image 0", "own.npz", "value 3", "0 to 2")),
        (lambda x: x, {"condition_map": 2}, ("condition", "[6, 2]", "[N, 4, 5, 2]")),
        (lambda x: x, {"num_classes": 2, "names": ("emu", "cat")}, ("condition", "ape")),
    ],
)
def test_images_that_the_model_does_not_take(own, refused, images, change, config, parts):
    with refused(*parts):
        everything(own({"x": change(images), "labels": LABELS, "condition": VECTORS}, **config))


CLASSES = np.arange(20) % 3


@pytest.mark.parametrize(
    "condition, expected",
    [
        (None, (0, 0)),
        (CLASSES, (3, 0)),
        (np.array(["c", "a", "b"])[CLASSES], (3, 0)),
        (np.random.default_rng(0).integers(9, size=(20, 4)), (0, 4)),
    ],
    ids=["none", "classes", "names", "vectors"],
)
def test_arrays_are_divided_with_their_condition(pictures, condition, expected):
    images = pictures(20, 3, 4, below=5)
    config, train, validation = array_splits(Config(), images, condition, 0.2)
    assert (len(train), len(validation), config.data.levels) == (16, 4, images.max() + 1)
    assert (config.model.num_classes, config.model.condition_vector) == expected
    rows = []
    for split in train, validation:
        batch = split.batch(range(len(split)))
        of_split = [int(np.flatnonzero((images == x[..., 0]).all((1, 2)))[0]) for x in batch.images]
        if condition is not None:
            names = np.array(split.class_names or range(3))
            labels = names[batch.condition] if condition.ndim == 1 else batch.condition
            np.testing.assert_array_equal(labels, condition[of_split])
        rows += of_split
    assert sorted(rows) == list(range(20))


def test_images_of_their_own_validate(pictures):
    images, classes = pictures(6, 3, 3, below=4), np.array(list("abcabc"))
    others = pictures(5, 3, 3, below=9), np.array(list("cabba"))
    config, train, validation = array_splits(Config(), images, classes, others)
    assert (len(train), len(validation)) == (6, 5)
    assert config.data.levels == others[0].max() + 1
    np.testing.assert_array_equal(validation.batch(range(5)).condition, [2, 0, 1, 1, 0])


IMAGES = np.zeros((9, 2, 2), int)


@pytest.mark.parametrize(
    "images, condition, validation, parts",
    [
        (np.zeros((9, 2, 2)), None, 0.1, ("float64", "model.output")),
        (IMAGES, np.arange(8), 0.1, ("`labels`", "[8]")),
        (IMAGES, None, 1.5, ("validation", "1.5")),
        (IMAGES[:1], None, 0.5, ("training", "[0, 2, 2, 1]")),
        (IMAGES, np.arange(9), IMAGES, ("validation", "no `labels`")),
        (IMAGES, np.array(list("a" * 9)), (IMAGES, np.array(list("z" * 9))), ("condition", "z")),
    ],
)
def test_arrays_that_are_refused(refused, images, condition, validation, parts):
    with refused(*parts):
        array_splits(Config(), images, condition, validation)
