"""Files that the user names: complete or not there; links and pipes are what they were."""

import os
import threading

import pytest

from pixel_rnn_jax import outputs
from pixel_rnn_jax.errors import UserError


def write(out, content=b"new"):
    with outputs.writing(str(out)) as file:
        file.write(content)


def test_a_file_is_replaced_once_it_is_complete(tmp_path):
    out = tmp_path / "new" / ("long" * 60 + ".npz")
    write(out, b"old")
    out.chmod(0o640)
    with pytest.raises(TypeError):
        write(out, "no bytes")
    assert out.read_bytes() == b"old"
    write(out)
    assert out.read_bytes() == b"new" and out.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_new_file_has_the_rights_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a")
        with outputs.filling(str(tmp_path / "b")) as folder:
            (folder / "c").write_text("c")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_links_are_followed_and_devices_are_written_to(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"
    write(os.devnull)
    assert not os.path.isfile(os.devnull)
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(tmp_path / "pipe")
    reader.join()
    assert found == [b"new"] and (tmp_path / "pipe").is_fifo()


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match=r"is a folder: give the name of a file"):
        write(tmp_path)
    with pytest.raises(UserError, match=r"file/a cannot be written: "):
        write(tmp_path / "file" / "a")
    with pytest.raises(UserError, match=r"file/a/b cannot be written: Not a directory"):
        outputs.check_name(str(tmp_path / "file" / "a" / "b"))
    with pytest.raises(UserError, match=r"/dev/full cannot be written: No space left on device"):
        write("/dev/full")
    with pytest.raises(UserError, match="cannot be written"), outputs.filling(str(tmp_path)):
        pass


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    """Not by its rights, since root may write anywhere."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path)
    for name in ("file", "new", "new/er"):
        with pytest.raises(UserError, match="cannot be written: Permission denied"):
            outputs.check_name(str(tmp_path / name))
    outputs.check_name(str(tmp_path / "other" / "new"))
    outputs.check_name(os.devnull)


def test_a_folder_is_there_once_it_is_complete(tmp_path):
    with pytest.raises(TypeError), outputs.filling(str(tmp_path / "a")) as folder:
        (folder / "b").write_bytes("no bytes")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    with outputs.filling(str(tmp_path / "a")) as folder:
        (folder / "b").write_text("b")
    assert (tmp_path / "a" / "b").read_text() == "b"
