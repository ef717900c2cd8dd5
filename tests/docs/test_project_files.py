"""What is written down twice is the same in both places, and what pages name exists."""

import pkgutil
import re
from pathlib import Path

import pixel_rnn_jax as prnn

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_version() -> None:
    version = re.escape(prnn.__version__)
    assert re.search(rf"^version: {version}$", text("CITATION.cff"), re.MULTILINE)
    assert re.search(rf"^## .*\b{version}\b", text("CHANGELOG.md"), re.MULTILINE)


def test_dotted_names_in_pages_exist() -> None:
    seen = [("model", prnn.load("digits")), *prnn.Config.__annotations__.items()]
    for _, name, _ in [*pkgutil.walk_packages(prnn.__path__, "pixel_rnn_jax.")][:-1]:  # No NetKet.
        module = pkgutil.resolve_name(name)
        seen += [(name.rpartition(".")[2], module), *vars(module).items()]
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for root, name in re.findall(r"`(\w+)\.(?!py|png|json|safe)(\w+)", page.read_text("utf-8")):
            has = [{*dir(x), *getattr(x, "__dataclass_fields__", ())} for k, x in seen if k == root]
            assert not has or name in set().union(*has), f"{page}: {root}.{name}"
