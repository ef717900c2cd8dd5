"""What the verbs print: the paths of what they wrote, results alone, or JSON."""

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from codec_streams import block_starts
from workdirs import evaluated

from pixel_rnn_jax import pictures, terminal
from pixel_rnn_jax.cli.parse import VERBS
from pixel_rnn_jax.config import from_config_dict, load_config_dict
from pixel_rnn_jax.training import compare as compare_lib
from pixel_rnn_jax.training.compare import Comparison
from pixel_rnn_jax.training.evaluate import Evaluation
from pixel_rnn_jax.training.train import train

IMAGES = np.random.default_rng(0).integers(3, size=(40, 4, 6, 1), dtype=np.uint8)
CONFIG = """
def get_config():
    model = dict(architecture="pixel_cnn", layers=1, features=2, first_kernel=3, head_features=3)
    data = dict(name="FOLDER/images.npz", levels=3)
    return dict(model=model, data=data, train=dict(steps=2, batch_size=8))
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of two steps, with its config file and its images."""
    folder = tmp_path_factory.mktemp("run")
    np.savez(folder / "images.npz", train=IMAGES[:10], validation=IMAGES[10:20], test=IMAGES[20:])
    (folder / "config.py").write_text(CONFIG.replace("FOLDER", str(folder)))
    train(from_config_dict(load_config_dict(str(folder / "config.py"))), folder)
    return folder


@pytest.fixture
def printed(run, workdir, tmp_path, monkeypatch, capsys):
    """Runs a command on the workdir in an empty folder, and returns what it prints in lines."""
    monkeypatch.chdir(tmp_path)
    pictures.write_images(IMAGES[:2], 3, "own")

    def command(words, status=0):
        assert run(words if words.startswith("info") else f"{words} --workdir={workdir}") == status
        out, err = capsys.readouterr()
        assert status or not err
        return out.splitlines()

    return command


VERBS_THAT_WRITE = {
    "train": (
        "--config={0}/config.py",
        ["{0}/result.json", "{0}/pictures/samples-2.png", "{0}/pictures/completions-2.png"],
    ),
    "evaluate": ("--out=scores.npz --pixel_map=map.png", ["scores.npz", "map.png"]),
    "sample": ("--n=2", ["samples.png"]),
    "complete": ("--n=2 --known=bottom_half", ["completions.png"]),
    "compress": ("--images=own", ["images.prnn"]),
    "append": ("images.prnn --images=own", ["images.prnn"]),
    "decompress": ("images.prnn", ["images.npz"]),
    "extract": ("images.prnn 0.png", ["images"]),
    "export": ("", ["model.safetensors"]),
    "report": ("--nomaps", ["report.html"]),
}


def test_every_verb_ends_with_the_paths_of_what_it_wrote(printed, workdir):
    """Also with --quiet, which leaves out the rest."""
    others = {"info", "verify", "completion"}
    assert VERBS.keys() == VERBS_THAT_WRITE.keys() | others
    for verb, (words, paths) in VERBS_THAT_WRITE.items():
        ends = [path.format(workdir) for path in paths]
        lines = printed(f"{verb} {words.format(workdir)}")
        for line, path in zip(lines[-len(ends) :], ends, strict=True):
            assert line.startswith(f"{path}: ") and Path(path).exists()
        if verb == "train":
            assert lines[0] == f"workdir: {workdir}"
            lines = [line for line in lines if line.startswith(("test, ", "/"))]
        elif verb == "complete":
            assert lines.pop(0).startswith("known values that come after unknown ones were not")
        elif verb == "extract":
            Path("images").rename("before")
        quiet = printed(f"{verb} --quiet {words.format(workdir)}")
        assert len(quiet) == len(lines) and (quiet == lines or verb == "append")


def test_quiet_hides_bars():
    options = {"total": 2, "desc": "working", "units": "images"}
    with contextlib.closing(terminal.bar(range(2), **options)) as bar:
        assert not bar.disable
    with terminal.printing(quiet=True, as_json=False):
        assert terminal.bar(range(2), **options).disable


def test_errors_are_printed_with_quiet(run, capsys):
    assert run("info --quiet nowhere.prnn") == 2
    assert capsys.readouterr().err.startswith("error: nowhere.prnn cannot be read")


def test_evaluate_as_json(printed, workdir):
    (line,) = printed("evaluate --json --pixel_map=map.png")
    expected = evaluated(workdir)
    assert json.loads(line) == {
        "workdir": str(workdir),
        "path": None,
        "split": "test",
        "nats": expected.nats,
        "standard_error": expected.standard_error,
        "bits_per_dim": expected.bits_per_dim,
        "dims": 24,
        "images": 20,
        "shares": {"4": expected.nats},
        "density": False,
        "real": False,
        "step": 2,
        "out": None,
        "pixel_map": "map.png",
    }
    (line,) = printed("evaluate --json --images=own/0.png --out=scores.npz")
    found = json.loads(line)
    assert found["standard_error"] is None and found["step"] == 2  # Of one image there is none.
    with np.load("scores.npz") as scores:
        assert [found["nats"]] == scores["nats"].tolist()
    assert (found["path"], found["split"], found["out"]) == ("own/0.png", None, "scores.npz")


def test_a_comparison_as_json(printed, monkeypatch):
    shares = {2: 0.1, 4: 1.0}
    values = [Evaluation(nats, math.nan, 24, 1, shares, real=nats > 2) for nats in (1.1, 2.0, 3.0)]
    monkeypatch.setattr(compare_lib, "compare", lambda *_, **__: Comparison(*values))
    (line,) = printed("evaluate --json --dequantize=3 --continuous=b")
    found = json.loads(line)
    assert found["draws"] == 3 and found["continuous_workdir"] == "b"
    assert [found[name]["nats"] for name in ("discrete", "implied", "continuous")] == [1.1, 2, 3]
    assert found["discrete"]["shares"] == {"2": 0.1, "4": 1.0}
    assert found["discrete"]["bits_per_dim"] == 1.1 / 24 / math.log(2)
    assert found["continuous"]["bits_per_dim"] is found["discrete"]["standard_error"] is None


def test_info_and_verify_as_json(run, printed, capsys):
    printed("compress --images=own")
    (line,) = printed("info images.prnn --json")
    size = Path("images.prnn").stat().st_size
    found = json.loads(line)
    assert len(found.pop("model")) == 16
    assert found == {
        "file": "images.prnn",
        "format": 1,
        "machine": None,
        "images": 2,
        "image_shape": [4, 6, 1],
        "levels": 3,
        "bytes": size,
        "blocks": 1,
        "bits_per_pixel": 8 * size / 48,
        "names": ["0.png", "1.png"],
        "damage": [],
    }
    (line,) = printed("verify images.prnn --json")
    verified = {"file": "images.prnn", "images": 2, "decoded": True, "damage": []}
    assert json.loads(line) == verified
    data = bytearray(Path("images.prnn").read_bytes())
    data[block_starts(data)[-1] - 1] ^= 1
    Path("images.prnn").write_bytes(data)
    what = "a block of the compressed file is damaged"
    damage = [{"what": what, "start": 0, "stop": 2, "names": ["0.png", "1.png"]}]
    for words in ("info", "verify"):
        assert run(f"{words} images.prnn --json") == 2
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert found["images"] == 0 and found["damage"] == damage
        assert err.startswith("error: the file is damaged")


def test_remarks_go_to_the_standard_error_beside_json(capsys):
    with terminal.printing(quiet=False, as_json=True):
        terminal.say("a remark")
        terminal.show("a result")
        terminal.show_json(nats=math.inf, rest={"a": math.nan, "b": 0.1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"nats": None, "rest": {"a": None, "b": 0.1}}
    assert err == "a remark\n"


def test_remarks_go_to_the_standard_error_beside_a_file_on_the_standard_output(capfd):
    with terminal.printing(quiet=False, as_json=False, out="/dev/stdout"):
        terminal.say("a remark")
        terminal.show("a result")
    assert capfd.readouterr() == ("a result\n", "a remark\n")
