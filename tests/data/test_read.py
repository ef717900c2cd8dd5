"""Images that the user names: read as they are stored, and checked for a model by their names."""

import numpy as np
import pytest
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.workdir import write_config, write_image_format
from pixel_rnn_jax.training.own_images import OwnImages

LABELS = np.array(["emu", "ape", "emu", "cat", "ape", "emu"])
VECTORS = np.random.default_rng(0).normal(size=(6, 2))


@pytest.fixture
def images(pictures):
    return pictures(6, 4, 5, 3, below=3)


@pytest.fixture
def folder(tmp_path, images):
    """Files of a folder and of a folder in it, which are in the order of their paths."""
    (tmp_path / "set" / "b").mkdir(parents=True)
    for name, image in zip(("a.png", "b/c.png", "d.bmp"), images, strict=False):
        Image.fromarray(image).save(tmp_path / "set" / name)
    return tmp_path / "set"


def own(path, split=None, names=(), shape=(4, 5, 3), levels=3, **config):
    """Opens images for a model that is never initialised."""
    model = prnn.PixelRNN(prnn.ModelConfig("pixel_cnn", **config), shape, levels)
    return OwnImages(data.open_images(path, split), model, names)


def everything(images):
    return images.batch(np.arange(len(images)))


def saved(path, **arrays):
    np.savez(path / "own.npz", **arrays)
    return path / "own.npz"


def test_folder_and_file(folder, images):
    found = prnn.read_images(folder)
    np.testing.assert_array_equal(found.images, images[:3])
    assert found.names.tolist() == ["a.png", "b/c.png", "d.bmp"] and found.condition is None
    found = prnn.read_images(str(folder / "b" / "c.png"))
    np.testing.assert_array_equal(found.images, images[1:2])
    assert found.names.tolist() == ["c.png"]


def test_arrays(tmp_path, images):
    np.save(tmp_path / "own.npy", images)
    found = prnn.read_images(tmp_path / "own.npy")
    np.testing.assert_array_equal(found.images, images)
    assert found.names.tolist() == list("012345")
    for beside in {"labels": LABELS}, {"labels": np.arange(6)}, {"condition": VECTORS}:
        found = prnn.read_images(saved(tmp_path, images=images, **beside))
        np.testing.assert_array_equal(found.condition, *beside.values())


def test_names_of_decompressed_images_are_no_images(tmp_path, images):
    found = prnn.read_images(saved(tmp_path, images=images, names=[f"{i}.png" for i in range(6)]))
    np.testing.assert_array_equal(found.images, images)


@pytest.mark.parametrize("levels", [2, 3])
def test_two_values_are_those_of_a_model_of_two(tmp_path, levels):
    Image.new("1", (5, 4)).save(tmp_path / "own.png")
    if levels == 2:
        assert len(own(tmp_path / "own.png", shape=(4, 5, 1), levels=2)) == 1
        return
    with pytest.raises(prnn.UserError, match=r"own.png.* the values 0 and 1, .* 0 to 2: convert"):
        own(tmp_path / "own.png", shape=(4, 5, 1), levels=3)


def test_splits(tmp_path, images):
    path = saved(tmp_path, test=images[:2], test_labels=LABELS[:2], train=images[2:])
    found = prnn.read_images(path, split="test")
    np.testing.assert_array_equal(found.images, images[:2])
    assert found.condition.tolist() == ["emu", "ape"] and found.names.tolist() == ["0", "1"]
    # A set that is not divided has rows in the whole array.
    np.save(tmp_path / "own.npy", images)
    for split in "train", "test":
        found = prnn.read_images(tmp_path / "own.npy", split)
        np.testing.assert_array_equal(found.images, images[found.names.astype(int)])


def test_split_of_a_run(tmp_path, images):
    """As its model sees it: binarised, and with numbers of classes."""
    path = saved(tmp_path, images=images, labels=LABELS)
    config = prnn.Config(
        model=prnn.ModelConfig(num_classes=3),
        data=prnn.DataConfig(name=str(path), levels=3, binarize="threshold"),
    )
    workdir = tmp_path / "run"
    write_config(config, workdir)
    write_image_format(ImageFormat((4, 5, 3), 2, class_names=("ape", "cat", "emu")), workdir)
    for split in None, "all":
        found = prnn.read_images(workdir, split)
        rows = found.names.astype(int)
        assert len(rows) == (6 if split else 1)
        np.testing.assert_array_equal(found.images, images[rows] == 2)
        np.testing.assert_array_equal(found.condition, np.array([2, 0, 2, 1, 0, 2])[rows])
    with pytest.raises(prnn.UserError, match="no split 'tset'"):
        prnn.read_images(workdir, "tset")


def test_names_of_a_tfds_set(write_tfds, opened, pictures):
    import tensorflow_datasets as tfds

    shards = [pictures(2, 3, 3, 1), pictures(1, 3, 3, 1)]
    write_tfds("toy", {"train": shards}, tfds.features.Image(shape=(3, 3, 1)))
    first, second = (f"toy-train.array_record-{i:05}-of-00002" for i in range(2))
    names = [f"{first}__0", f"{first}__1", f"{second}__0"]
    assert opened("toy").record_names().tolist() == names


@pytest.mark.parametrize(
    "name, split, parts",
    [
        ("nowhere", None, ("nowhere': there is no such folder or image file",)),
        ("nowhere.npy", None, ("nowhere.npy': there is no such file",)),
        ("notes.txt", None, ("notes.txt' must be a folder, an .npy or .npz file, or an image",)),
        ("a.png", "test", ("a.png' is one image, which has no split 'test'",)),
        ("divided.npz", None, ("is divided into test, train", "or name the split")),
        ("divided.npz", "validation", ("has no split 'validation': choose from test, train",)),
        ("labels.npz", None, ("the labels of", "labels.npz' do not fit its images: `labels` must")),
        ("sizes", None, ("must have one size and mode: ", "b.png is 3x5 'RGB', but")),
        ("empty", None, ("there are no image files in",)),
    ],
)
def test_what_cannot_be_read(tmp_path, images, refused, name, split, parts):
    (tmp_path / "notes.txt").write_text("no image")
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    np.savez(tmp_path / "divided.npz", test=images, train=images)
    np.savez(tmp_path / "labels.npz", images=images, labels=LABELS[1:])
    for folder in "sizes", "empty":
        (tmp_path / folder).mkdir()
    Image.fromarray(images[0]).save(tmp_path / "sizes" / "a.png")
    Image.fromarray(images[0, 1:]).save(tmp_path / "sizes" / "b.png")
    with refused(*parts):
        prnn.read_images(tmp_path / name, split)


def test_images_for_a_model(tmp_path, folder, images):
    batch = everything(own(folder))
    np.testing.assert_array_equal(batch.images, images[:3])
    assert batch.images.dtype == np.uint8 and batch.condition is None
    np.save(tmp_path / "own.npy", images.astype(np.int64))
    assert everything(own(tmp_path / "own.npy", levels=300)).images.dtype == np.uint16
    # A density of levels gets noise, as in evaluation, and floats as they are.
    found = everything(own(tmp_path / "own.npy", output="logistic_mixture")).images
    assert found.dtype == np.float32 and (found > images).any()
    np.testing.assert_array_equal(np.floor(found), images)
    config = prnn.Config(
        prnn.ModelConfig(output="logistic_mixture"),
        prnn.DataConfig(str(tmp_path / "own.npy"), levels=3),
    )
    source = data.open_source(config, "all")
    np.testing.assert_array_equal(found, source.batch(np.arange(6)).images)
    np.save(tmp_path / "own.npy", images + 0.25)
    for output, levels in ("logistic_mixture", 3), ("gaussian_mixture", 0):
        found = everything(own(tmp_path / "own.npy", output=output, levels=levels)).images
        np.testing.assert_array_equal(found, np.float32(images + 0.25))


def test_conditions_for_a_model(tmp_path, images):
    path = saved(tmp_path, images=images, labels=LABELS, condition=VECTORS)
    # By the names of the run, whose numbers differ from those of the file.
    found = everything(own(path, num_classes=4, names=("emu", "dog", "cat", "ape"))).condition
    assert found.tolist() == [0, 3, 0, 2, 3, 0]
    found = everything(own(path, condition_vector=2)).condition
    np.testing.assert_array_equal(found, np.float32(VECTORS))
    numbers = saved(tmp_path, images=images, labels=np.arange(6))
    assert everything(own(numbers, num_classes=6)).condition.tolist() == list(range(6))


@pytest.mark.parametrize(
    "shape, parts",
    [
        ((4, 6, 3), ("a.png has shape [4, 6, 3], the model takes [4, 5, 3]",)),
        ((4, 5, 4), ("a.png has shape [4, 5, 4]", ": save the images without transparency")),
    ],
)
def test_files_of_another_shape(tmp_path, refused, pictures, shape, parts):
    (tmp_path / "own").mkdir()
    Image.fromarray(pictures(*shape)).save(tmp_path / "own" / "a.png")
    with refused(*parts):
        own(tmp_path / "own")


@pytest.mark.parametrize(
    "change, config, parts",
    [
        (lambda x: x.transpose(0, 3, 1, 2), {}, ("image 0 of '", "[N, H, W, C]")),
        (lambda x: x / 1, {}, ("own.npz' has values of type float64", "integers from 0 to 2")),
        (lambda x: np.where(x > 1, 3, x), {}, ("image 1 of '", "has the value 3", "takes 0 to 2")),
        (
            lambda x: np.where(x > 1, np.nan, x),
            {"output": "gaussian_mixture", "levels": 0},
            ("image 1 of '", "has the value nan", "takes finite numbers of type float32"),
        ),
        (lambda x: x, {"condition_vector": 3}, ("shape [2] for an image, the model takes [3]",)),
        (lambda x: x, {"condition_map": 2}, ("shape [2] for an image", "takes [4, 5, 2]")),
        (lambda x: x, {"num_classes": 2}, ("there is no class 'ape': the classes of this model",)),
        (
            lambda x: x[:5],
            {"num_classes": 3},
            ("the labels of '", "do not fit its images: `labels`"),
        ),
    ],
)
def test_arrays_that_a_model_does_not_take(tmp_path, refused, images, change, config, parts):
    images[0] = np.minimum(images[0], 1)
    path = saved(tmp_path, images=change(images), labels=LABELS, condition=VECTORS)
    with refused(*parts):
        everything(own(path, **config))


def test_missing_conditions_and_classes_out_of_range(tmp_path, folder, refused, images):
    with refused("takes classes from 0 to 2, but '", "has no labels: give an .npz file"):
        own(folder, num_classes=3)
    with refused("takes a vector for each image, but '", "has no condition: give an .npz file"):
        own(folder, condition_vector=3)
    path = saved(tmp_path, images=images, labels=np.arange(6))
    with refused("image 3 of '", "has the class 3, the model takes 0 to 2"):
        everything(own(path, num_classes=3))


def test_unknown_values_may_be_anything(tmp_path, refused, images):
    known = np.arange(4)[:, None, None] < np.full((5, 3), 2)
    images[2, 3, 4, 1] = 255
    found = own(saved(tmp_path, images=images))
    assert found.batch(np.arange(6), known=known).images[2, 3, 4, 1] == 255
    with refused("image 2 of '", "has the value 255"):
        found.batch(np.arange(1, 6), known=~known)


def test_python_arrays_that_would_fit(refused, pictures):
    model = prnn.create(prnn.ModelConfig("pixel_cnn", layers=1, features=3), (4, 5, 3), 256)
    with refused("got [2, 3, 4, 5]: transpose the array to [N, H, W, C]"):
        model.log_prob(pictures(2, 3, 4, 5))
    with refused("got [2, 4, 5, 4]: save the images without transparency"):
        model.log_prob(pictures(2, 4, 5, 4))


PARTS = {"[:3]": slice(3), "[1:2]": slice(1, 2), "[50%:]": slice(3, None), "[:]": slice(None)}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_split(tmp_path, folder, images, part):
    path = saved(tmp_path, images=images, labels=LABELS)
    found = prnn.read_images(path, f"all{part}")
    for one, other in zip(found, prnn.read_images(path), strict=True):
        np.testing.assert_array_equal(one, other[PARTS[part]])
    # A folder of three images.
    found, whole = prnn.read_images(folder, "all[1:]"), prnn.read_images(folder)
    np.testing.assert_array_equal(found.images, whole.images[1:])
    np.testing.assert_array_equal(found.names, whole.names[1:])


def test_a_part_without_images_is_refused(tmp_path, images, refused):
    path = saved(tmp_path, images=images)
    with refused("has 6 images, of which 'all[9:]' takes none"):
        prnn.read_images(path, "all[9:]")


CHECKED = {"png", "npz"}
"""Formats with checksums."""


@pytest.mark.parametrize("times", [20, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", ["npz", "npy", "png", "jpg", "tif", "webp", "bmp", "pgm"])
# NumPy leaves a damaged .npz file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_files_are_refused_or_read_as_before(tmp_path, pictures, suffix, times, rng):
    """One wrong bit, or the end is missing; formats without checksums may give other pixels."""
    path, images = tmp_path / f"own.{suffix}", pictures(1, 9, 10)
    if suffix.startswith("np"):
        {"npz": np.savez_compressed, "npy": np.save}[suffix](path, images)
    else:
        Image.fromarray(images[0]).save(path)
    content, expected, said = path.read_bytes(), prnn.read_images(path).images, []
    for time in range(times):
        at = rng.randrange(len(content))
        wrong = bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        path.write_bytes(content[:at] + (wrong if time % 10 else b""))
        try:
            found = prnn.read_images(path).images
        except prnn.UserError as error:
            said.append(str(error))
        else:
            assert suffix not in CHECKED or np.array_equal(found, expected)
    assert len(said) > times / 20
    assert all(str(path) in text and "\n" not in text for text in said)
