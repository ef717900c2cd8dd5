"""MNIST, CIFAR-10 and ImageNet: small archives in the original forms, in a folder or served."""

import dataclasses
import errno
import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
from helpers.pictures import png
from tensorflow_datasets.core import features, hashing

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.data import standard
from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.main import main, parse_flags
from pixel_rnn_jax.system import devices

PNGS, BATCHES = "downsampled_imagenet/32x32", "imagenet_resized/32x32"
NAMES = ("binarized_mnist", "mnist", "cifar10", PNGS, BATCHES)


def packed(mode, members):
    """Returns a tar archive, or with the mode "zip" a zip archive, of {name: content}."""
    file = io.BytesIO()
    if mode == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def saved(save, *args, **arrays):
    """Returns what a function writes to a file."""
    save(file := io.BytesIO(), *args, **arrays)
    return file.getvalue()


def sha256_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def flat(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def records(splits):
    batches = {"data_batch_2": ("train", 5, 9), "test_batch": ("test", 0, 3)}
    batches["data_batch_1"] = "train", 0, 5  # They lie in any order.
    members = {"batches.meta.txt": b"no batch"}
    for name, (split, first, stop) in batches.items():
        images, labels = (array[first:stop] for array in splits[split])
        rows = np.concatenate([labels[:, None].astype(np.uint8), flat(images)], axis=1)
        members[f"cifar-10-batches-bin/{name}.bin"] = rows.tobytes()
    return packed("w:gz", members)


def archives_of(name, split, splits):
    """Returns the archives of a split, in the order of the set's table."""
    images, labels = splits[split]
    if name == "binarized_mnist":
        return ["".join(" ".join(map(str, image.ravel())) + "\n" for image in images).encode()]
    if name == "mnist":
        one = struct.pack(">4i", 2051, len(images), 28, 28) + images.tobytes()
        other = struct.pack(">2i", 2049, len(images)) + bytes(labels.tolist())
        return [gzip.compress(one), gzip.compress(other)]
    if name == "cifar10":
        return [records(splits)]
    if name == PNGS:
        return [packed("w", {f"{row}.png": png(image) for row, image in enumerate(images)})]
    rows = {"0.npz": slice(2), "1.npz": slice(2, None)}
    batches = {
        file: saved(np.savez, data=flat(images)[r], labels=labels[r] + 1)
        for file, r in rows.items()
    }
    return [packed("zip", batches)]


def key(name, split, row):
    """Returns by what TFDS orders an image."""
    if name == BATCHES:
        return f"0.npz{row}" if row < 2 else f"1.npz{row - 2}"
    if name == PNGS:
        return f"{row}.png"
    return row + 9_995 if name == "cifar10" and split == "train" and row >= 5 else row


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Sets with nine images in "train", three in other splits: {name: {split: (images, labels)}}.

    Their archives are in the folder `site`, and what is converted goes to `cache`.
    """
    monkeypatch.setenv("PIXEL_RNN_JAX_DATA", str(tmp_path / "cache"))
    rng, made = np.random.default_rng(0), {}
    (tmp_path / "site").mkdir()
    for name in NAMES:
        old, parts = standard.SETS[name], {}
        made[name] = {
            split: (
                rng.integers(0, old.levels, (count, *old.shape), np.uint8),
                rng.integers(0, 10, count),
            )
            for split, count in zip(old.splits, (9, 3, 3), strict=False)
        }
        for split, (images, labels) in made[name].items():
            files = [tmp_path / "site" / file for file in old.splits[split][-1]]
            for file, content in zip(files, archives_of(name, split, made[name]), strict=True):
                file.write_bytes(content)
            shas = {file.name: sha256_of(file) for file in files}
            labels = None if name in ("binarized_mnist", PNGS) else labels
            parts[split] = len(images), standard.fingerprint(images, labels)[-1], shas
        monkeypatch.setitem(standard.SETS, name, dataclasses.replace(old, splits=parts))
    return made


@pytest.fixture
def server(made, tmp_path, monkeypatch):
    """Serves the folder `site` instead of the sites of the sets; breaks off paths in `cut` once."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source, outputfile):
            server.requests.append(self.path)
            content = source.read()
            outputfile.write(content[: len(content) // 2] if self.path in server.cut else content)
            server.cut.discard(self.path)

        def log_message(self, *args):
            pass

    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    handler = functools.partial(Handler, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requests, server.cut = [], set()
        server.url = f"http://127.0.0.1:{server.server_port}"
        for name in NAMES:
            moved = dataclasses.replace(standard.SETS[name], url=server.url)
            monkeypatch.setitem(standard.SETS, name, moved)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def opened(name, split="train", **fields):
    dataset = data.open_dataset(DataConfig(name, **fields), split)
    rows = np.arange(len(dataset))
    return dataset.images[rows], None if dataset.labels is None else dataset.labels[rows], dataset


def left(tmp_path):
    """Returns what the cache holds beside locks."""
    return {file.name for file in (tmp_path / "cache").rglob("*") if file.suffix != ".lock"}


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_archives_is_read_in_the_order_of_tfds(made, tmp_path, name):
    standard.prepare(name, str(tmp_path / "site"))
    for split, (images, labels) in made[name].items():
        hash_key = hashing.Hasher(split).hash_key
        order = np.argsort([hash_key(key(name, split, row)) for row in range(len(images))])
        stored, numbers, dataset = opened(name, split)
        np.testing.assert_array_equal(stored, images[order])
        if name in ("binarized_mnist", PNGS):
            assert numbers is None
        else:
            np.testing.assert_array_equal(numbers, labels[order])
        assert dataset.levels == (2 if name == "binarized_mnist" else 256)
        assert len(dataset.class_names) == (10 if name == "cifar10" else 0)
        np.testing.assert_array_equal(opened(name, f"{split}[1:]")[0], stored[1:])


def test_a_set_of_tfds_has_the_same_images(made, write_tfds, tmp_path):
    standard.prepare("binarized_mnist", str(tmp_path / "site"))
    images, _, cached = opened("binarized_mnist")
    write_tfds("binarized_mnist", {"train": [images]}, features.Image(shape=(28, 28, 1)))
    same, _, prepared = opened("binarized_mnist", data_dir=str(tmp_path))
    assert prepared.file_names and not cached.file_names  # The prepared one is taken first.
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(prepared.ids, cached.ids)
    model = prnn.load("mnist")
    np.testing.assert_array_equal(model.log_prob(same[:2]), model.log_prob(images[:2]))


def test_another_archive_is_opened_only_by_its_name(made, tmp_path, monkeypatch, capsys, refused):
    file = tmp_path / "site" / "cifar-10-binary.tar.gz"
    content = gzip.compress(gzip.decompress(file.read_bytes()), 1)
    file.write_bytes(content)
    with refused(str(file), hashlib.sha256(content).hexdigest()):
        standard.prepare("cifar10", str(file.parent))
    assert left(tmp_path) == set()
    monkeypatch.setattr(devices, "set_up_host_devices", lambda: None)  # The tests have set them up.
    words = ["", "prepare", "cifar10", f"--from={file}"]
    assert main(parse_flags(words)) == 0
    printed = capsys.readouterr()
    sha256 = standard.SETS["cifar10"].splits["test"][1]
    assert f"SHA-256 {sha256}" in printed.out and "not the original archive" in printed.err


def test_a_set_is_downloaded_once_by_several_processes(server, made, tmp_path):
    with ThreadPoolExecutor() as pool:
        for images, _, _ in pool.map(opened, ["mnist"] * 3):
            assert len(images) == 9
    assert len(server.requests) == len(set(server.requests)) == 4
    assert not {".mnist.archives", ".mnist.new"} & left(tmp_path)


def test_a_download_that_breaks_off_begins_again(server):
    server.cut |= {"/binarized_mnist_train.amat", "/binarized_mnist_test.amat"}
    assert len(opened("binarized_mnist")[0]) == 9
    assert len(server.requests) == 5


def test_a_mirror(server, made, monkeypatch):
    monkeypatch.setenv("PIXEL_RNN_JAX_MIRROR", f"{server.url}/")
    moved = dataclasses.replace(standard.SETS["mnist"], url="")
    monkeypatch.setitem(standard.SETS, "mnist", moved)
    assert len(opened("mnist")[0]) == 9


def test_an_order_that_is_no_permutation_is_refused(made, tmp_path, refused):
    standard.prepare("mnist", str(tmp_path / "site"))
    path = tmp_path / "cache/mnist/test_order.npy"
    order = np.load(path)
    for wrong in (np.where(order == 1, 2, order), np.arange(len(order) - 1), order / 1):
        np.save(path, wrong)
        for use in (standard.prepare, lambda name: opened(name, "test")):
            with refused(str(path)):
                use("mnist")


def test_other_archives_than_the_original_are_not_downloaded(server, tmp_path, refused):
    file = tmp_path / "site/train-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), 1))
    with refused("data.name 'mnist'", "train-labels-idx1-ubyte.gz", "prepare mnist --from"):
        opened("mnist")
    assert not {"mnist", ".mnist.new"} & left(tmp_path)


@pytest.fixture
def as_original(monkeypatch):
    """Makes other archives of a set the original ones."""

    def register(name, site):
        parts = {
            split: (count, sha, {file: sha256_of(site / file) for file in files})
            for split, (count, sha, files) in standard.SETS[name].splits.items()
        }
        other = dataclasses.replace(standard.SETS[name], splits=parts)
        monkeypatch.setitem(standard.SETS, name, other)

    return register


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", [0, 100, 0.6])
def test_truncated_archives_are_refused(made, as_original, tmp_path, refused, name, part):
    file = tmp_path / "site" / next(iter(standard.SETS[name].splits["train"][-1]))
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content) if part < 1 else part)])
    as_original(name, file.parent)
    with refused(file.name, name):
        standard.prepare(name, str(file.parent))
    assert not {name.rpartition("/")[-1], ".mnist.new"} & left(tmp_path)


def test_archives_that_cannot_be_had_are_named(server, tmp_path, refused):
    server.shutdown()
    server.server_close()
    with refused("data.name 'downsampled_imagenet/64x64'", "valid_64x64.tar", "--from"):
        opened("downsampled_imagenet/64x64")
    with pytest.raises(ConnectionError, match="cifar10.*cifar-10-binary.tar.gz.*--from"):
        opened("cifar10")
    with refused("--from", "train_32x32.tar"):
        standard.prepare(PNGS, str(tmp_path))
    with refused("data.data_dir", str(tmp_path)):  # A folder that does not have the set.
        opened("cifar10", data_dir=str(tmp_path))
    assert left(tmp_path) <= {".cifar10.archives", "downsampled_imagenet"}


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space")])
def test_what_stops_a_conversion_leaves_nothing_half_made(server, tmp_path, monkeypatch, stop):
    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", mock.Mock(side_effect=stop))
        with pytest.raises(type(stop)):
            opened("mnist")
    assert not {"mnist", ".mnist.new", "train.npy"} & left(tmp_path)
    # A kill can remove nothing.
    (tmp_path / "cache/.mnist.new").mkdir()
    (tmp_path / "cache/.mnist.new/train_labels.npy").write_bytes(b"cut")
    assert len(opened("mnist")[0]) == 9
    assert len(server.requests) == 4  # The archives were there.
    assert ".mnist.new" not in left(tmp_path)


def test_fingerprints(made):
    images, labels = made["mnist"]["train"]
    count, bits, sha = standard.fingerprint(images, labels)
    parts = [
        image.tobytes() + bytes([label, 0]) for image, label in zip(images, labels, strict=True)
    ]
    hashes = sorted(hashlib.sha256(part).digest() for part in parts)
    assert (count, sha) == (9, hashlib.sha256(b"".join(hashes)).hexdigest())
    columns = images.reshape(9, -1).T.tolist()
    shares = [column.count(value) / 9 for column in columns for value in column]
    assert bits == pytest.approx(-np.log2(shares).sum() / 9 / len(columns))
    order = [3, 1, 2, 0, *range(4, 9)]
    assert standard.fingerprint(images[order], labels[order]) == (count, bits, sha)


def test_archives_write_nothing_outside(made, as_original, tmp_path):
    before, images = set(tmp_path.rglob("*")), made[PNGS]["train"][0]
    members = {f"../../{row}.png": png(image) for row, image in enumerate(images)}
    (tmp_path / "site/train_32x32.tar").write_bytes(packed("w", members))
    as_original(PNGS, tmp_path / "site")
    standard.prepare(PNGS, str(tmp_path / "site"))
    new = set(tmp_path.rglob("*")) - before
    assert all(tmp_path / "cache" in (path, *path.parents) for path in new)
    assert not any(path.suffix == ".png" for path in new)
