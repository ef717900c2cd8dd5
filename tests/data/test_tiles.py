"""Pictures of any size, cut into squares or parts, and pictures of other forms than the model's."""

import numpy as np
import pytest
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.data import dataset
from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.data.open import open_dataset

SPLITS = "train", "validation", "test"


def folder_of(tmp_path, pictures):
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.tif")
    return tmp_path


def test_tiles_of_pictures_of_any_size(tmp_path, pictures):
    big, small, tiny = pictures(9, 13), pictures(8, 5), pictures(3, 30)
    path = str(folder_of(tmp_path, [big, small, tiny]))
    tiles = dataset.squares(open_dataset(DataConfig(path), "all"), 4)
    expected = [big[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i in range(2) for j in range(3)]
    expected += [small[:4, :4], small[4:, :4]]
    np.testing.assert_array_equal(tiles.images[np.arange(8)][..., 0], expected)
    assert tiles.names()[5:7] == ["0.tif/4-8", "1.tif/0-0"]
    assert tiles.ids[:, 1:].tolist()[5:7] == [[0, 4, 8], [1, 0, 0]]


def test_arrays_are_cut_with_their_labels_and_vectors(tmp_path, pictures):
    images, vectors = pictures(3, 4, 6), pictures(3, 2)
    np.savez(tmp_path / "x.npz", x=images, labels=np.array(list("bab")), condition=vectors)
    np.save(tmp_path / "x.npy", images)
    files = (str(tmp_path / f"x.{suffix}") for suffix in ("npz", "npy"))
    cut, of_npy = (dataset.squares(open_dataset(DataConfig(f), "all"), 2) for f in files)
    rows = np.arange(18)
    np.testing.assert_array_equal(cut.images[rows], of_npy.images[rows])
    np.testing.assert_array_equal(cut.images[rows][7, ..., 0], images[1, :2, 2:4])
    np.testing.assert_array_equal(cut.condition, vectors.repeat(6, 0))
    assert cut.labels.tolist() == [1] * 6 + [0] * 6 + [1] * 6


def test_training_visits_squares_at_random_places(opened, pictures):
    """Image and map are cut at a place that depends on seed and position alone."""
    images = np.arange(10 * 5 * 7).reshape(10, 5, 7)
    arrays = {"x": images, "condition": images[..., None]}
    parts = [
        opened(arrays, split, crop=3, condition_map=1, levels=350, output="softmax")
        for split in SPLITS
    ]
    train = parts[0]
    assert [len(part) for part in parts] == [16, 2, 2] and train.image_shape == (3, 3, 1)
    fixed, visits = train.batch(np.arange(16)), train.batch(np.zeros(500, int), range(500))
    for batch in fixed, visits, train.batch([0], [7]):
        np.testing.assert_array_equal(batch.images, batch.condition)
    rows = train.dataset.ids[:, 1:]
    expected = [images[n, i : i + 3, j : j + 3, None] for n, i, j in rows]
    np.testing.assert_array_equal(fixed.images, expected)
    corner = images[rows[0, 0], :3, :5, None].ravel()
    assert sorted({*visits.images[:, 0, 0, 0].tolist()}) == corner.tolist()
    np.testing.assert_array_equal(train.batch([0], [7]).images[0], visits.images[7])
    data.dataset.check_disjoint(**dict(zip(SPLITS, parts, strict=True)))


def test_own_images_of_several_sizes(tmp_path, pictures):
    """Parts of each shape are a split, and pictures that do not fit are named."""
    own = [pictures(5, 9, 3), pictures(4, 4, 3), pictures(9, 5, 3)]
    model = prnn.create(prnn.ModelConfig(layers=1, features=6), (4, 4, 3), 256).pixel_rnn
    split = data.own_images(folder_of(tmp_path, own), None, model)
    seen = [np.full(image.shape, -1) for image in own]
    for places, part in split.parts(4, 1):
        for place, image in zip(places, part.batch(np.arange(len(part))).images, strict=True):
            place.of(seen[place.picture])[...] = image
    for image, parts in zip(own, seen, strict=True):
        np.testing.assert_array_equal(image, parts)
    assert [image.shape for image in data.read_files(tmp_path).images] == [x.shape for x in own]


def test_refusals(tmp_path, refused, pictures, opened):
    folder_of(tmp_path, [pictures(8, 8), pictures(8, 8, 3)])
    with refused("train", "has 0 of 2"):
        opened(tmp_path)
    with refused("data.crop", "9x9"):
        opened(tmp_path, "all", crop=9)
    with refused("1.tif", "[8, 8, 3]"):
        opened(tmp_path, "all", crop=4).batch([4])


@pytest.mark.parametrize(
    "mode, dtype", [("I;16", np.uint16), ("I;16B", np.uint16), ("L", np.uint8)]
)
def test_tiff_of_8_and_16_bits(tmp_path, read, mode, dtype):
    levels = np.iinfo(dtype).max + 1
    values = np.random.default_rng(0).integers(0, levels, (4, 4)).astype(dtype)
    stored = values.astype(values.dtype.newbyteorder(">")) if mode == "I;16B" else values
    Image.frombuffer(mode, (4, 4), stored.tobytes(), "raw", mode, 0, 1).save(tmp_path / "x.tiff")
    images = read(tmp_path, "all", levels=levels)
    np.testing.assert_array_equal(images[0, ..., 0], values)


def test_black_and_white_are_two_levels(opened, read, refused, pictures):
    bits = pictures(70, 4, 4, below=2)
    split = opened({"x": 255 * bits}, "all", levels=2)
    np.testing.assert_array_equal(read(split)[..., 0], bits)
    (remark,), (other,) = split.remarks(), opened({"x": 255 * bits}).remarks()
    assert "0 and 255 are taken" in remark and "data.levels=2" in other
    assert read({"x": np.full((9, 4, 4), 255, np.uint8)}, levels=2).all()
    grey = 255 * bits
    grey[69, 0, 0] = 128
    with refused("image 69", "128"):
        read({"x": grey}, "all", levels=2)
