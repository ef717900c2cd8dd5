"""Where compiled programs are kept, and that a second start finds them all."""

from pathlib import Path

import jax
import programs
import pytest

from pixel_rnn_jax.runtime import compilation


@pytest.fixture
def folder():
    """Sets the folder of compiled programs; what the tests have comes back afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield lambda value: (compilation.keep_programs(value), compilation.programs_folder())[1]
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache_folder_by_default(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Path(folder(None)).parent == tmp_path / "pixel-rnn-jax"


def test_none_are_kept_where_the_users_folder_cannot_be_made(folder, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert folder(None) is None


def test_programs_are_kept_where_the_user_says(folder, tmp_path):
    somewhere = str(tmp_path / "somewhere")
    assert folder(somewhere) == somewhere
    assert folder(None) == somewhere  # As JAX_COMPILATION_CACHE_DIR sets it.
    assert folder("") is None


def test_a_second_start_compiles_nothing(tmp_path):
    kept = []
    for number in range(2):
        words = programs.train_words(tmp_path / str(number), train__steps=2)
        programs.run(*programs.MAIN, *words, f"--compilation_cache={tmp_path / 'programs'}")
        kept.append({path.name for path in (tmp_path / "programs").glob("*-cache")})
    assert kept[0] == kept[1] != set()
