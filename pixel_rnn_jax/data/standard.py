"""MNIST, CIFAR-10 and ImageNet: downloaded, and converted once to arrays in the user's cache.

The folder of a set has for each split the images of the archives, `SPLIT.npy`, perhaps their
`SPLIT_labels.npy`, and `SPLIT_order.npy`: their rows as TFDS orders them, so that runs are the same.
"""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixel_rnn_jax.data import archives
from pixel_rnn_jax.data.dataset import Dataset, LazyArray, divide, image_ids
from pixel_rnn_jax.system import terminal
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import atomic_write, cache_folder, error_context, open_lock

AT_ONCE = 1000  # Images of which a fingerprint is computed.
Fingerprint = tuple[int, float, str]


@dataclass(frozen=True)
class StandardSet:
    """The images of a set, the reader of its archives, and their address, if there still is one.

    For each split: the number of images, their SHA-256 (`fingerprint`) or None, and the SHA-256 of
    each archive.
    """

    shape: tuple[int, int, int]
    read: archives.Reader
    splits: Mapping[str, tuple[int, str | None, Mapping[str, str]]]
    url: str = ""
    levels: int = 256
    class_names: tuple[str, ...] = ()


def folder_of(name: str) -> Path:
    """Returns where the set `name` lies once it is converted: $PIXEL_RNN_JAX_DATA/`name`."""
    return Path(os.environ.get("PIXEL_RNN_JAX_DATA") or cache_folder() / "data") / name


def open_standard(name: str, split: str) -> Dataset:
    """Opens a split of a set of `SETS`, which is downloaded and converted if it is not there."""
    standard, folder = SETS[name], folder_of(name)
    if not folder.exists():
        prepare(name)

    def read_part(part: str) -> Dataset:
        order, file = _order(name, folder, part), folder / f"{part}_labels.npy"
        with error_context(folder / f"{part}.npy"):
            images = np.asarray(np.load(folder / f"{part}.npy", mmap_mode="r"))
            labels = np.load(file)[order] if file.exists() else None
        return Dataset(
            name=name,
            images=LazyArray(lambda indices: images[order[indices]], range(len(order))),
            # TFDS has the small sets in one such file; fixed binarisation draws by its name.
            ids=image_ids(f"{name}-{part}.array_record-00000-of-00001", len(order)),
            levels=standard.levels,
            labels=labels,
            class_names=standard.class_names,
        )

    return divide(f"data.name {name!r}", split, standard.splits, read_part, whole=False)


def _order(name: str, folder: Path, split: str) -> np.ndarray:
    path = folder / f"{split}_order.npy"
    with error_context(path):
        order, count = np.load(path), SETS[name].splits[split][0]
        if order.dtype.kind != "i" or not np.array_equal(np.sort(order), np.arange(count)):
            raise ValueError(f"no permutation of {count:,} images")
    return order


def prepare(name: str, source: str = "") -> dict[str, Fingerprint]:
    """Converts a set of `SETS`, unless it is there, and returns its fingerprints.

    `source` is a folder or an address of the archives, by default $PIXEL_RNN_JAX_MIRROR or the site
    of the set; or the one archive, of any SHA-256. The folder of the set is made whole, also after
    a kill. Downloads are kept until then, unless they are wrong.
    """
    folder = folder_of(name)
    hidden = folder.with_name(f".{folder.name}")
    downloads, unfinished = hidden.with_suffix(".archives"), hidden.with_suffix(".new")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open_lock(hidden.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # A second process waits here, and finds the set.
        if folder.exists():
            return _checked(name, folder)
        paths = _archives(name, source or os.environ.get("PIXEL_RNN_JAX_MIRROR", ""), downloads)
        shutil.rmtree(unfinished, ignore_errors=True)  # A killed process left it.
        unfinished.mkdir()
        try:
            for split in SETS[name].splits:
                _convert(name, split, paths, unfinished)
            fingerprints = _checked(name, unfinished)
            unfinished.rename(folder)
        except UserError:
            shutil.rmtree(downloads, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(downloads, ignore_errors=True)
        return fingerprints


def _archives(name: str, source: str, downloads: Path) -> dict[str, Path]:
    """Returns the archives of a set, whose SHA-256 is compared, after downloading them if needed."""
    import pooch  # Imported only where it is used.

    checksums = dict(pair for *_, files in SETS[name].splits.values() for pair in files.items())
    needed, url = ", ".join(checksums), source or SETS[name].url
    if source and "://" not in source:
        place = Path(source).expanduser()
        is_named = place.is_file() and len(checksums) == 1
        paths = {file: place if is_named else place / file for file in checksums}
        for file, path in paths.items():
            if not path.is_file():
                raise UserError(f"--from={source} is no folder with {needed}: no {file}")
            found = pooch.file_hash(path)
            is_original = found == checksums[file]
            if not is_original and not is_named:
                raise UserError(f"{path} has the SHA-256 {found}, not {checksums[file]}")
            terminal.log(f"{path}: {'' if is_original else 'not '}the original archive")
        return paths
    advice = f"get {needed}, and run pixel-rnn-jax prepare {name} --from=FOLDER"
    if not url:
        raise UserError(f"data.name {name!r} cannot be downloaded any more: {advice}")
    fetcher = pooch.create(downloads, f"{url.rstrip('/')}/", registry=checksums, retry_if_failed=3)
    downloader = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=2**20)
    try:
        for file in checksums:
            fetcher.fetch(file, downloader=downloader)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # The disk's.
        # A site that does not answer may do so later.
        status = getattr(getattr(error, "response", None), "status_code", 500)
        lasting = isinstance(error, ValueError) or status < 500
        text = f"data.name {name!r} cannot be downloaded: {error}: {advice}"
        raise (UserError if lasting else ConnectionError)(text) from error
    return {file: downloads / file for file in checksums}


def _convert(name: str, split: str, paths: Mapping[str, Path], folder: Path) -> None:
    standard, keys, labels = SETS[name], [], []
    (count, _, files), salt = standard.splits[split], hashlib.md5(split.encode())
    items = standard.read([paths[file] for file in files], split)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *standard.shape)}
    which = ", ".join(str(paths[file]) for file in files)
    with error_context(f"the {split} images of {name} in {which}"):
        with atomic_write(folder / f"{split}.npy") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for key, image, label in terminal.progress(items, count, split, "images"):
                if (image.shape, image.dtype) != (standard.shape, np.uint8):
                    raise ValueError(f"an image has the shape {list(image.shape)}")
                file.write(image.tobytes())
                (salted := salt.copy()).update(str(key).encode())
                keys.append(salted.digest())
                labels.append(label)
        if len(keys) != count:
            raise ValueError(f"there are {len(keys):,} images, not {count:,}")
    arrays = {"order": np.array(sorted(range(count), key=keys.__getitem__))}
    if labels[0] is not None:
        arrays["labels"] = np.array(labels, np.int32)
    for field, array in arrays.items():
        with atomic_write(folder / f"{split}_{field}.npy") as file:
            np.save(file, array)


def _checked(name: str, folder: Path) -> dict[str, Fingerprint]:
    """Returns the fingerprints of all splits; raises `UserError` if one is known to be another."""
    found = {}
    for split, (_, known, _) in SETS[name].splits.items():
        images, labels = folder / f"{split}.npy", folder / f"{split}_labels.npy"
        _order(name, folder, split)
        with error_context(images):
            number = np.load(labels) if labels.exists() else None
            found[split] = fingerprint(np.load(images, mmap_mode="r"), number)
        if known not in (None, found[split][-1]):
            what = f"damaged, or not the {split} images of {name}"
            raise UserError(f"{images}: {what}: SHA-256 {found[split][-1]}, not {known}")
    return found


def fingerprint(images: np.ndarray, labels: np.ndarray | None = None) -> Fingerprint:
    """Returns what identifies images `[N, H, W, C]` of bytes, with labels `[N]`, in any order.

    It is N; the bits/dim of independent pixels: the mean entropy of their histograms; and the
    SHA-256 of the sorted SHA-256s of all images, of their bytes and the two of the label as <u2.
    """
    num_values, hashes = images[0].size, []
    counts, position = np.zeros(256 * num_values, np.int64), 256 * np.arange(num_values)
    for start in range(0, len(images), AT_ONCE):
        rows = np.asarray(images[start : start + AT_ONCE]).reshape(-1, num_values)
        counts += np.bincount((rows + position).ravel(), minlength=len(counts))
        if labels is not None:
            ends = labels[start : start + AT_ONCE].astype("<u2")[:, None].view(np.uint8)
            rows = np.concatenate([rows, ends], axis=1)
        hashes += [hashlib.sha256(row.tobytes()).digest() for row in rows]
    shares = counts[counts > 0] / len(images)
    bits = -(shares * np.log2(shares)).sum() / num_values
    return len(images), float(bits), hashlib.sha256(b"".join(sorted(hashes))).hexdigest()


_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
# fmt: off
_TAR = {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"}
SETS = {
    "binarized_mnist": StandardSet((28, 28, 1), archives.read_text, {
        "train": (50_000, "a7fd7b5641135473c766e33ea73027bfb4b1a7e849c91bc5226185492414d31c", {
            "binarized_mnist_train.amat": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
        }),
        "validation": (10_000, "eb562c869ad1e98ae983398a0814a2951883a6774daec25492783d47ca20e5ec", {
            "binarized_mnist_valid.amat": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
        }),
        "test": (10_000, "33c5b54cb41a2068dc57d56bc8ac1904becfae8b3c529664bdc5cef9efab1cee", {
            "binarized_mnist_test.amat": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
        }),
    }, "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist", levels=2),
    "mnist": StandardSet((28, 28, 1), archives.read_idx, {
        "train": (60_000, "9708accc50af27a9627416e78a793007bf42f667a88d0f5c5a06d78ab3c0ae99", {
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        }),
        "test": (10_000, "ee7813665339043615253a82b48fe15c5d43328266aa3d84b0cbc26975f8a926", {
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        }),
    }, "https://storage.googleapis.com/cvdf-datasets/mnist"),
    "cifar10": StandardSet((32, 32, 3), archives.read_records, {
        "train": (50_000, "aba2613db999bab40d772d178fac39fd2e148f40cc2ddff24e571f6eb81982b2", _TAR),
        "test": (10_000, "12d8607894ffd895dde9bfe7a8894226e19070fccf65dc6d6fa3659d56246e66", _TAR),
    }, "https://www.cs.toronto.edu/~kriz", class_names=tuple(_CLASSES.split())),
    # The paper's own; TFDS's issue 4662 says where it is now.
    "downsampled_imagenet/32x32": StandardSet((32, 32, 3), archives.read_pngs, {
        "train": (1_281_149, None, {"train_32x32.tar": "244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5"}),
        "validation": (49_999, None, {"valid_32x32.tar": "862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7"}),
    }),
    "downsampled_imagenet/64x64": StandardSet((64, 64, 3), archives.read_pngs, {
        "train": (1_281_149, None, {"train_64x64.tar": "e2a2c1947a748d0d256e98e6d82800d855441dc9e4de2e71a773f1324c4524d7"}),
        "validation": (49_999, None, {"valid_64x64.tar": "eeac03ec4f585baf871d2b4cb9c974bfe345e74878a74e5820fe6eb1041629cd"}),
    }),
    # The same photographs made small in another way: their likelihoods do not compare.
    "imagenet_resized/32x32": StandardSet((32, 32, 3), archives.read_npz, {
        "train": (1_281_167, None, {"Imagenet32_train_npz.zip": "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc"}),
        "validation": (50_000, None, {"Imagenet32_val_npz.zip": "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a"}),
    }, "https://image-net.org/data/downsample"),
    "imagenet_resized/64x64": StandardSet((64, 64, 3), archives.read_npz, {
        "train": (1_281_167, None, {
            "Imagenet64_train_part1_npz.zip": "9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1",
            "Imagenet64_train_part2_npz.zip": "9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30",
        }),
        "validation": (50_000, None, {"Imagenet64_val_npz.zip": "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8"}),
    }, "https://image-net.org/data/downsample"),
}
# fmt: on
"""The sets by their TFDS names."""
