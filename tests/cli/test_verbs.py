"""The verbs on a tiny trained model: files and what is printed, against the model itself."""

import fcntl
import math
import os
import re
import sys
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from codec_streams import block_starts, small_model
from PIL import Image
from workdirs import evaluated, two_steps

from pixel_rnn_jax import load, pictures
from pixel_rnn_jax.cli import compress
from pixel_rnn_jax.codec import archive, coder
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from pixel_rnn_jax.data import open_records
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.runtime import processes
from pixel_rnn_jax.training.evaluate import Evaluation
from pixel_rnn_jax.training.train import TrainResult, train

IMAGES = np.random.default_rng(0).integers(3, size=(40, 4, 5, 1), dtype=np.uint8)
DAMAGED = "a block of the compressed file is damaged"
TOP = np.arange(4)[:, None] < np.full(5, 2)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of two steps on images of three levels."""
    folder = tmp_path_factory.mktemp("run")
    splits = np.split(IMAGES, [10, 20])
    np.savez(folder / "images.npz", train=splits[0], validation=splits[1], test=splits[2])
    train(two_steps(folder / "images.npz"), folder)
    return folder


@pytest.fixture(scope="module")
def model(workdir):
    return load(workdir)


@pytest.fixture
def printed(run, workdir, tmp_path, monkeypatch, capsys):
    """Runs a command on the workdir in an empty folder, and returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def command(words, status=0):
        assert run(f"{words} --workdir={workdir}") == status
        out, err = capsys.readouterr()
        return err if status else out

    return command


def array(file):
    with np.load(file) as arrays:
        return arrays["images"]


def picture(file):
    with Image.open(file) as image:
        return np.asarray(image)


def test_sample(printed, model):
    out = printed("sample --n=5 --seed=7 --out=new/samples.npz")
    images = array("new/samples.npz")
    np.testing.assert_array_equal(images, model.sample(jax.random.key(7), 5))
    nats = -model.log_prob(images).mean()
    assert out == (
        f"new/samples.npz: 5 samples, on average {nats:.2f} nats, "
        f"{nats / 20 / math.log(2):.4f} bits/dim\n"
    )
    printed("sample --n=5 --seed=7")
    np.testing.assert_array_equal(picture("samples.png"), pictures.grid(images, 3))
    printed("sample --n=5 --seed=7 --out=samples")
    assert sorted(path.name for path in Path("samples").iterdir()) == [f"{i}.png" for i in range(5)]
    printed("sample --n=5 --seed=8 --out=seed.npz")
    assert (array("seed.npz") != images).any()
    printed("sample --n=5 --temperature=0 --out=cold.npz")
    cold = array("cold.npz")
    assert (cold == cold[:1]).all()
    assert printed("sample").startswith("samples.png: 64 samples")
    assert printed("sample --label=1", status=2).startswith(
        "error: --label is for a model with classes"
    )


def test_complete_the_test_split(printed, model):
    expected = model.complete(jax.random.key(7), IMAGES[20:36], TOP)
    out = printed("complete --seed=7 --out=done.npz")
    completed = array("done.npz")
    np.testing.assert_array_equal(completed, expected.images)
    np.testing.assert_array_equal(completed[:, :2], IMAGES[20:36, :2])
    nats = -model.log_prob(completed, per_value=True)[:, :2].sum(axis=(1, 2, 3)).mean()
    assert out == f"done.npz: 16 completions; the known values have {nats:.2f} nats on average\n"
    printed("complete --seed=7 --n=3")
    masks = np.broadcast_to(TOP[..., None], (3, 4, 5, 1))
    np.testing.assert_array_equal(
        picture("completions.png"), pictures.completions(IMAGES[20:23], masks, completed[:3], 3)
    )


def test_complete_own_images(printed):
    np.save("own.npy", IMAGES[:2])
    Image.fromarray(np.eye(4, 5, dtype=bool)).save("mask.png")
    own = "complete --images=own.npy --known=mask.png"
    out = printed(f"{own} --out=done")
    assert "known values that come after unknown ones were not looked at: --particles=64" in out
    diagonal = np.arange(4)
    for index, name in enumerate(("0.png", "1.png")):
        completed = picture(Path("done", name))
        np.testing.assert_array_equal(completed[diagonal, diagonal], IMAGES[index].diagonal()[0])


def test_few_particles_that_fit_come_with_advice(printed, model, monkeypatch):
    words = "complete --n=1 --particles=4 --known=left_half"
    advice = "few particles fit the known values: --particles=16 may fit better\n"
    out = printed(words)
    size = re.search(r"effective sample size: at least (\S+) of 4 particles\n", out)
    assert size and (advice in out) == (float(size[1]) < 3.6)
    found = model.complete(jax.random.key(0), IMAGES[20:21], np.ones((4, 5), bool))
    found = found._replace(effective_sample_size=np.array([1.5]))
    monkeypatch.setattr(ImageModel, "complete", lambda *_, **__: found)
    assert f"at least 1.5 of 4 particles\n{advice}" in printed(words)


def test_evaluate_with_a_pixel_map(printed, model, workdir):
    images = IMAGES[10:20]
    out = printed("evaluate --split=validation --pixel_map=map.png")
    nats = -np.asarray(model.log_prob(images, per_value=True)).sum(-1)
    np.testing.assert_array_equal(picture("map.png"), pictures.pixel_map(images, nats, 3))
    assert out == (
        f"validation, step 2: {evaluated(workdir, 'validation')}\n"
        f"map.png: 10 images; white is {nats.max():.2f} nats, black is none\n"
    )


def test_data_that_have_moved(printed, workdir):
    """`--data` says where they are now; other images are refused."""
    expected = printed("evaluate"), printed("complete --n=2")
    images = workdir / "images.npz"
    moved = images.rename(workdir / "moved.npz")
    try:
        for verb in ("evaluate", "complete"):
            assert "no such file; if it has moved, say where" in printed(verb, status=2)
        words = f"--data={moved}"
        assert (printed(f"evaluate {words}"), printed(f"complete --n=2 {words}")) == expected
        np.savez("other.npz", train=IMAGES[:10], validation=IMAGES[:10], test=IMAGES[20:])
        for verb in ("evaluate", "complete"):
            error = printed(f"{verb} --data=other.npz", status=2)
            assert error.startswith(f"error: other.npz does not hold the images that {workdir} was")
    finally:
        moved.rename(images)


def scores(file):
    with np.load(file) as arrays:
        return dict(arrays)


def test_scores_of_own_images(printed, model):
    """All of a folder, and of one split of a file."""
    pictures.write_images(IMAGES, 3, "own")
    out = printed("evaluate --images=own --out=new/scores.npz --per_value")
    found = scores("new/scores.npz")
    expected = -np.asarray(model.log_prob(IMAGES, per_value=True))
    nats = expected.sum(axis=(1, 2, 3))
    assert found.keys() == {"nats", "bits_per_dim", "names", "nats_per_value"}
    assert found["nats"].dtype == np.float64
    np.testing.assert_allclose(found["nats"], nats, rtol=1e-5)
    np.testing.assert_allclose(found["bits_per_dim"], nats / 20 / math.log(2), rtol=1e-5)
    np.testing.assert_allclose(found["nats_per_value"], expected, rtol=1e-4, atol=1e-6)
    assert found["names"].tolist() == sorted(path.name for path in Path("own").iterdir())
    first, second = out.splitlines()
    assert first.startswith(f"own, step 2: {nats.mean():.3f} ± {nats.std(ddof=1) / 40**0.5:.3f}")
    assert second == "new/scores.npz: the scores of 40 images"

    np.savez("own.npz", a=IMAGES[:7], test=IMAGES[7:])
    out = printed("evaluate --images=own.npz --split=test --out=scores.npz")
    np.testing.assert_allclose(scores("scores.npz")["nats"], nats[7:], rtol=1e-5)
    assert "nats_per_value" not in scores("scores.npz")
    assert "is divided into a, test" in printed("evaluate --images=own.npz", status=2)


def test_scores_may_lie_beside_the_images(printed):
    pictures.write_images(IMAGES[:2], 3, "own")
    for _ in range(2):
        printed("evaluate --images=own --out=own/scores.npz")


def test_scores_of_a_split(printed, workdir):
    """Of the same program as without a file, so that all digits agree."""
    out = printed("evaluate --split=validation --out=scores.npz")
    found, expected = scores("scores.npz"), evaluated(workdir, "validation")
    assert out.splitlines()[0] == f"validation, step 2: {expected}"
    assert found["nats"].mean() == expected.nats
    assert found["names"].tolist() == list(map(str, range(10)))


def test_one_image_file(printed, model):
    Image.fromarray(IMAGES[3, ..., 0]).save("own.png")
    nats = -float(model.log_prob(IMAGES[3:4])[0])
    assert printed("evaluate --images=own.png").startswith(f"own.png, step 2: {nats:.3f} nats, ")
    assert printed("compress --images=own.png").startswith("images.prnn: ")
    assert printed("complete --images=own.png --out=done.npz").startswith("done.npz: 1 completion;")
    np.testing.assert_array_equal(array("done.npz")[0, :2], IMAGES[3, :2])


@pytest.mark.parametrize("images", ["own.npz", "own"])
def test_compress_and_decompress(printed, monkeypatch, images):
    monkeypatch.setattr(coder, "GROUP", 16)
    monkeypatch.setattr(archive, "BLOCK_BYTES", 1)
    pictures.write_images(IMAGES, 3, images)
    out = printed(f"compress --images={images}")
    size = Path("images.prnn").stat().st_size
    assert out == (
        f"images.prnn: {size:,} bytes for 40 images, {8 * size / 800:.4f} bits/dim "
        "(200 bytes uncompressed)\n"
    )
    assert printed("decompress images.prnn --out=back") == "back: 40 images\n"
    back = open_records(DataConfig(name="./back"), "all")
    np.testing.assert_array_equal(back.read(np.arange(40)), IMAGES)

    stream = bytearray(Path("images.prnn").read_bytes())
    stream[block_starts(stream)[-1] - 1] ^= 1
    Path("images.prnn").write_bytes(stream)
    assert "damaged" in printed("decompress images.prnn --out=rest.npz", status=2)
    assert not Path("rest.npz").exists()
    out = printed("decompress images.prnn --out=rest.npz --skip_damaged")
    lost = "a block of the compressed file is damaged: images 33 to 40 cannot be read\n"
    assert out == f"{lost}rest.npz: 32 images\n"
    np.testing.assert_array_equal(array("rest.npz"), IMAGES[:32])


def test_decompress_tells_of_lost_images_where_none_is_left_to_draw(run, printed, workdir, capsys):
    np.save("own.npy", IMAGES[:3])
    printed("compress --images=own.npy")
    data = Path("images.prnn").read_bytes()
    Path("images.prnn").write_bytes(data[: block_starts(data)[-1] - 1])
    assert run(f"decompress images.prnn --skip_damaged --out=a.png --workdir={workdir}") == 2
    out, err = capsys.readouterr()
    assert out == "the compressed file is cut off: images 1 to the last cannot be read\n"
    assert err.startswith("error: there are no images to draw")


@pytest.fixture
def pets(printed, monkeypatch):
    """A compressed folder of 40 files in three blocks."""
    monkeypatch.setattr(coder, "GROUP", 16)
    monkeypatch.setattr(archive, "BLOCK_BYTES", 1)
    names = [f"{'dogs' if i % 2 else 'cats'}/{i:02}.png" for i in range(40)]
    pictures.write_images(IMAGES, 3, "pets", names=names)
    printed("compress --images=pets --out=pets.prnn")
    order = np.argsort(names)
    return [names[i] for i in order], IMAGES[order]


def test_a_folder_comes_back_with_its_names(printed, pets):
    names, images = pets
    assert printed("decompress pets.prnn --out=back") == "back: 40 images\n"
    for name, image in zip(names, images, strict=True):
        before, after = Path("pets", name), Path("back", name)
        with Image.open(before) as old, Image.open(after) as new:
            assert new.mode == old.mode
            np.testing.assert_array_equal(np.asarray(new), image[..., 0])
    printed("decompress pets.prnn --out=back.npz")
    with np.load("back.npz") as file:
        assert file["names"].tolist() == names
        np.testing.assert_array_equal(file["images"], images)


def test_info_needs_no_model(run, capsys, pets):
    names, _ = pets
    size = Path("pets.prnn").stat().st_size
    assert run("info pets.prnn") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pets.prnn: pixel_rnn_jax, format 1, portable"
    assert re.fullmatch("model: [0-9a-f]{16}", lines[1])
    assert lines[2] == "images: 40 of 4x5x1, 3 levels"
    assert lines[3] == f"size: {size:,} bytes in 3 blocks, {8 * size / 800:.4f} bits a pixel"
    assert lines[4:] == [f"  {name}" for name in names]


def test_extract(printed, pets):
    names, images = pets
    words = f"extract pets.prnn {names[20]} {names[3]} --out"
    assert printed(f"{words}=two.npz") == "two.npz: 2 images\n"
    with np.load("two.npz") as file:
        assert file["names"].tolist() == [names[3], names[20]]
        np.testing.assert_array_equal(file["images"], images[[3, 20]])
    printed(f"extract pets.prnn --names={names[20]} {names[3]} --out=two")
    assert sorted(str(path) for path in Path("two").rglob("*.png")) == sorted(
        f"two/{names[i]}" for i in (3, 20)
    )
    missing = "error: pets.prnn has no image 'cow.png', nor 1 others: see `info` for the names\n"
    assert printed("extract pets.prnn cow.png x --out=one", status=2) == missing


def test_extract_where_a_block_is_damaged(printed, pets):
    names, _ = pets
    data = bytearray(Path("pets.prnn").read_bytes())
    data[block_starts(data)[2] - 1] ^= 1
    Path("pets.prnn").write_bytes(data)
    assert printed(f"extract pets.prnn {names[0]} --out=one").endswith("one: 1 image\n")
    lost = f"has no image {names[20]!r} that can be read: the file is damaged\n"
    assert lost in printed(f"extract pets.prnn {names[0]} {names[20]} --out=two", status=2)


def test_extract_from_images_without_names(printed):
    np.save("own.npy", IMAGES)
    printed("compress --images=own.npy")
    message = "error: no image of images.prnn has a name: decompress it\n"
    assert printed("extract images.prnn 3 --out=one", status=2) == message


def test_append(printed, pets, monkeypatch):
    names, images = pets
    before = Path("pets.prnn").stat().st_size
    pictures.write_images(IMAGES[:3], 3, "more")
    out = printed("append pets.prnn --images=more")
    assert re.match(r"pets.prnn: [\d,]+ bytes for 3 more images, [\d.]+ bits/dim ", out)
    printed("decompress pets.prnn --out=back.npz")
    with np.load("back.npz") as file:
        assert file["names"].tolist() == [*names, "0.png", "1.png", "2.png"]
        np.testing.assert_array_equal(file["images"], np.concatenate([images, IMAGES[:3]]))
    data = Path("pets.prnn").read_bytes()
    assert len(data) > before

    real_append = archive.append

    def append(*arguments):  # Another one is done in the meantime.
        Path("again").write_bytes(data)
        Path("again").rename("pets.prnn")
        return real_append(*arguments)

    monkeypatch.setattr(compress.archive, "append", append)
    said = printed("append pets.prnn --images=more", status=2)
    assert "pets.prnn was replaced meanwhile" in said
    monkeypatch.setattr(compress.archive, "append", real_append)
    with Path("pets.prnn").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = printed("append pets.prnn --images=more", status=2)
        assert said == "error: another append to pets.prnn has not ended: append after it\n"
    assert Path("pets.prnn").read_bytes() == data
    Path("pets.prnn").write_bytes(data[:-4])
    assert "cut off" in printed("append pets.prnn --images=more", status=2)
    assert Path("pets.prnn").read_bytes() == data[:-4]  # As it was.


def test_verify(run, printed, pets, workdir, capsys):
    names, _ = pets
    assert printed("verify pets.prnn") == (
        "pets.prnn: all 40 images decode to what was compressed\n"
    )
    assert run("verify pets.prnn") == 0
    assert "images are as they were written (give --workdir" in capsys.readouterr().out
    data = bytearray(Path("pets.prnn").read_bytes())
    data[block_starts(data)[2] - 1] ^= 1
    Path("pets.prnn").write_bytes(data)
    for words in ("verify pets.prnn", f"verify pets.prnn --workdir={workdir}", "info pets.prnn"):
        assert run(words) == 2
        out, err = capsys.readouterr()
        lines = out.splitlines()[-17:]
        assert lines[0] == f"{DAMAGED}: images 17 to 32 cannot be read"
        assert lines[1:] == [f"  {name}" for name in names[16:32]]
        assert (" in 2 blocks that can be read, " in out) == words.startswith("info")
        assert err.startswith("error: the file is damaged: get an intact copy")


def test_a_stream_from_the_standard_input(printed, pets, monkeypatch):
    _, images = pets
    with Path("pets.prnn").open("rb") as file:
        monkeypatch.setattr("sys.stdin", Mock(buffer=file))
        printed("decompress - --out=back.npz")
    np.testing.assert_array_equal(array("back.npz"), images)


def test_names_of_any_bytes_are_listed_and_extracted(run, printed, capsys):
    """Not UTF-8, of two lines, with a colour, or with spaces and joiners of many languages."""
    kept = ["\u00e4 b.png", "at\u202f9\u00a0pm.png", "\U0001f469\u200d\U0001f33e.png"]
    names = ["caf\udce9.png", "two\nlines.png", "\x1b[31mred\u202e.png", *kept]
    pictures.write_images(IMAGES[:6], 3, "pets", names=names)
    printed("compress --images=pets --out=pets.prnn")
    assert run("info pets.prnn") == 0
    lines = capsys.readouterr().out.splitlines()[4:]
    shown = [r"caf\udce9.png", r"two\nlines.png", r"\x1b[31mred\u202e.png", *kept]
    assert sorted(lines) == sorted(f"  {name}" for name in shown)
    assert printed("extract pets.prnn caf\udce9.png --out=one") == "one: 1 image\n"
    assert Path("one", names[0]).is_file()


@pytest.mark.parametrize("out", ["pipe", "/dev/fd/{}"])
def test_compress_writes_to_a_pipe(printed, out):
    np.save("own.npy", IMAGES)
    printed("compress --images=own.npy")
    expected = Path("images.prnn").read_bytes()
    if out == "pipe":
        os.mkfifo(out)
        reading = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
        ends = [reading]
    else:
        reading, writing = ends = os.pipe()
        out = out.format(writing)
    said = printed(f"compress --images=own.npy --out={out}")
    assert said.startswith(f"{out}: {len(expected):,} bytes for 40 images, ")
    assert os.read(reading, 2**16) == expected
    for end in ends:
        os.close(end)


def test_the_standard_output_gets_the_compressed_images_alone(printed, monkeypatch):
    np.save("own.npy", IMAGES)
    printed("compress --images=own.npy")
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        printed(f"compress --images=own.npy --out=/dev/fd/{writing}")
        assert os.read(reading, 2**16) == Path("images.prnn").read_bytes()


def test_a_file_that_gets_the_standard_output_keeps_what_it_has(printed, monkeypatch):
    np.save("own.npy", IMAGES)
    printed("compress --images=own.npy")
    with Path("all").open("a") as stdout:
        print("before", file=stdout)
        monkeypatch.setattr(sys, "stdout", stdout)
        printed(f"compress --images=own.npy --out=/dev/fd/{stdout.fileno()}")
        print("after", file=stdout)
    content = Path("images.prnn").read_bytes()
    assert Path("all").read_bytes() == b"before\n" + content + b"after\n"


@pytest.mark.parametrize("redirected", [True, False])
def test_a_file_by_its_own_name_is_replaced_whatever_the_standard_output_is(
    printed, monkeypatch, redirected
):
    np.save("own.npy", IMAGES)
    printed("compress --images=own.npy")
    content = Path("images.prnn").read_bytes()
    with Path("images.prnn").open("a") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout if redirected else None)
        printed("compress --images=own.npy")
    assert Path("images.prnn").read_bytes() == content


def test_names_of_files_may_be_as_long_as_the_disk_takes(printed):
    np.save("own.npy", IMAGES)
    longest = 250 * "a" + ".prnn"
    assert printed(f"compress --images=own.npy --out={longest}").startswith(f"{longest}: ")
    printed(f"decompress {longest} --out={250 * 'b'}")
    assert len(list(Path(250 * "b").iterdir())) == 40


def test_a_file_that_fails_while_it_is_read(printed, monkeypatch):
    failing = Mock(read=Mock(side_effect=OSError(5, "Input/output error")))
    monkeypatch.setattr("sys.stdin", Mock(buffer=failing))
    error = printed("decompress -", status=2)
    assert error == "error: the compressed file cannot be read: Input/output error\n"


def test_compress_leaves_no_half_file(printed):
    """Images that do not fit show late; what had the name before stays."""
    Path("own.prnn").write_text("precious")
    np.save("own.npy", IMAGES + 1)
    compress = "compress --images=own.npy --out"
    assert "has the value 3, the model takes 0 to 2" in printed(f"{compress}=own.prnn", status=2)
    assert sorted(path.name for path in Path().iterdir()) == ["own.npy", "own.prnn"]
    assert Path("own.prnn").read_text() == "precious"


def train_tiny(folder, data, **options):
    """Trains for two steps on a file of images; returns the model."""
    tiny = dict(layers=1, features=2, first_kernel=3, head_features=3)
    config = Config(
        model=ModelConfig("pixel_cnn", **tiny | options),
        data=DataConfig(name=str(data), levels=0 if "output" in options else 3),
        train=TrainConfig(steps=2, batch_size=8),
    )
    train(config, folder)
    return load(folder)


def test_sample_a_class_by_its_name_or_number(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = np.array(["oak", "ash", "elm"])[np.arange(40) % 3]
    np.savez("images.npz", images=IMAGES, labels=names)
    model = train_tiny(tmp_path / "run", tmp_path / "images.npz", num_classes=3)
    assert model.class_names == ("ash", "elm", "oak")
    for label in ("oak", "2"):
        assert run(f"sample --n=3 --label={label} --out={label}.npz --workdir=run") == 0
        expected = model.sample(jax.random.key(0), 3, ["oak"] * 3)
        np.testing.assert_array_equal(array(f"{label}.npz"), expected)
    assert run("sample --n=6 --out=rows.npz --workdir=run") == 0
    expected = model.sample(jax.random.key(0), 6, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(array("rows.npz"), expected)


def test_sample_with_a_condition(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = small_model("pixel_cnn", (4, 5, 1), 3, condition_vector=2)
    monkeypatch.setattr("pixel_rnn_jax.image_model.load", lambda _: model)
    vectors = np.random.default_rng(0).normal(size=(4, 2))
    np.savez("condition.npz", condition=vectors)
    np.save("condition.npy", vectors)
    sample = "sample --seed=3 --out=samples.npz --workdir=run"
    assert run(f"{sample} --condition=condition.npz") == 0
    images = array("samples.npz")
    np.testing.assert_array_equal(images, model.sample(jax.random.key(3), 4, vectors))
    nats = -float(model.log_prob(images, vectors).mean())
    assert f"4 samples, on average {nats:.2f} nats" in capsys.readouterr().out
    assert run(f"{sample} --condition=condition.npy --n=3") == 0
    np.testing.assert_array_equal(array("samples.npz"), images[:3])


def test_a_run_on_real_values(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(50, 10, size=(40, 4, 5, 1)).astype(np.float32)
    np.save("values.npy", values)
    model = train_tiny(tmp_path / "run", tmp_path / "values.npy", output="gaussian_mixture")
    assert model.levels == 0 and 40 < model.pixel_rnn.offset[0] < 60
    for words in (
        "evaluate --pixel_map=map.png",
        "sample --n=2 --out=samples.npz",
        "sample --n=2",
        "complete --images=values.npy --n=2 --out=done.npz",
        "complete --n=2",
    ):
        assert run(f"{words} --workdir=run") == 0
    said = capsys.readouterr().out
    assert f"test, step 2: {evaluated(tmp_path / 'run')}\n" in said
    nats = -float(model.log_prob(array("samples.npz")).mean())
    assert (
        f"samples.npz: 2 samples, on average {nats:.2f} nats, {nats / 20:.4f} nats a value" in said
    )
    done = array("done.npz")
    np.testing.assert_array_equal(done[:, :2], values[:2, :2])
    assert abs(done[:, 2:] - 50).max() < 1000 and (done[:, 2:] != values[:2, 2:]).all()
    assert all(picture(f"{name}.png").size for name in ("map", "samples", "completions"))
    assert run("compress --images=values.npy --workdir=run") == 2
    assert "a continuous model gives images no probability" in capsys.readouterr().err


@pytest.mark.parametrize("worse", [True, False])
def test_train_says_where_the_model_is_worse_than_independent_pixels(
    run, tmp_path, monkeypatch, capsys, worse
):
    test, baseline = (Evaluation(nats, 0.5, 20, 20) for nats in (8.0 + worse, 8.0))
    result = TrainResult(test, baseline, ())
    monkeypatch.setattr("pixel_rnn_jax.training.train.train", lambda *_, **__: result)
    monkeypatch.setattr(processes, "join", lambda *_, **__: None)
    assert run(f"train --config=digits --workdir={tmp_path}") == 0
    said = capsys.readouterr().out
    assert ("the model is worse than independent pixels: train for longer" in said) == worse
