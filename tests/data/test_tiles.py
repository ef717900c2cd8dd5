"""Pictures cut into tiles, and pictures of other forms than the model's."""

import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax import data
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
    tiles = open_dataset(DataConfig(path, tile=4), "all")
    expected = [big[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i in range(2) for j in range(3)]
    expected += [small[:4, :4], small[4:, :4]]
    np.testing.assert_array_equal(tiles.images[np.arange(8)][..., 0], expected)
    assert tiles.names()[5:7] == ["0.tif/4-8", "1.tif/0-0"]
    assert tiles.picture_ids.tolist() == [0] * 6 + [1] * 2


def test_arrays_are_cut_with_their_labels_and_vectors(tmp_path, pictures):
    images, vectors = pictures(3, 4, 6), pictures(3, 2)
    np.savez(tmp_path / "x.npz", x=images, labels=np.array(list("bab")), condition=vectors)
    np.save(tmp_path / "x.npy", images)
    files = (str(tmp_path / f"x.{suffix}") for suffix in ("npz", "npy"))
    cut, of_npy = (open_dataset(DataConfig(file, tile=2), "all") for file in files)
    rows = np.arange(18)
    np.testing.assert_array_equal(cut.images[rows], of_npy.images[rows])
    np.testing.assert_array_equal(cut.images[rows][7, ..., 0], images[1, :2, 2:4])
    np.testing.assert_array_equal(cut.condition, vectors.repeat(6, 0))
    assert cut.labels.tolist() == [1] * 6 + [0] * 6 + [1] * 6


@pytest.mark.parametrize("count, side", [(2, 40), (30, 8)])
def test_tiles_of_a_picture_stay_together(tmp_path, count, side):
    np.save(tmp_path / "x.npy", np.arange(count * side**2).reshape(count, side, side))
    parts = [open_dataset(DataConfig(str(tmp_path / "x.npy"), tile=4), split) for split in SPLITS]
    whole = np.concatenate([part.images[np.arange(len(part))].ravel() for part in parts])
    assert sorted(whole) == list(range(count * side**2))
    pictures = [set(part.picture_ids.tolist()) for part in parts]
    assert sum(map(len, pictures)) <= count + 2
    data.dataset.check_disjoint(**dict(zip(SPLITS, parts, strict=True)))


def test_refusals(tmp_path, refused, pictures, opened):
    folder_of(tmp_path, [pictures(8, 8), pictures(8, 8, 3)])
    with refused("data.tile=64", "has 0 of 2"):
        opened(tmp_path)
    with refused("data.tile", "9x9"):
        opened(tmp_path, tile=9)
    with refused("1.tif/0-0", "[4, 4, 3]"):
        opened(tmp_path, tile=4)
    with refused("data.tile"):
        opened("digits", tile=4)
    maps = {"x": pictures(9, 4, 4), "condition": pictures(9, 4, 4, 2)}
    with refused("condition_map", "[N, 2, 2, 2]"):
        opened(maps, tile=2, condition_map=2)


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
