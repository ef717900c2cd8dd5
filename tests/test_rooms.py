"""The rooms of the package: arrows between them point down, and each says what it may import."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pixel_rnn_jax"
FLOORS = [
    {"errors", "kernels", "shipped"},
    {"config", "runtime", "layers", "image_files", "outputs", "paths", "hub", "installation"},
    {"terminal", "data", "models"},
    {"generation", "batches", "pictures"},
    {"pixel_rnn"},
    {"codec", "runs"},
    {"image_model"},
    {"training"},
    {"__init__"},
    {"report"},
    {"cli"},
    {"main"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def arrows():
    """Yields the imports between rooms: (module, its room, the room that it imports)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):  # A relative import is no name of the package.
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                assert not node.level, f"{module} has a relative import"
            for package, *rest in (name.split(".") for name in names):
                other = rest[0] if rest and rest[0] in FLOOR else "__init__"
                if package == "pixel_rnn_jax" and other != module.parts[0]:
                    yield str(module), module.parts[0], other


def test_arrows_between_rooms_point_down():
    modules = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    assert {module.parts[0] for module in modules} == FLOOR.keys()
    assert {room for _, room, _ in arrows()} == FLOOR.keys() - {"errors", "kernels", "shipped"}
    assert not [arrow for arrow in arrows() if FLOOR[arrow[1]] <= FLOOR[arrow[2]]]


def test_no_function_is_longer_than_a_page():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 100, f"{path.name}: {node.name}"


def test_the_drawing_has_every_room_on_its_floor():
    drawing = (PACKAGE.parent / "docs" / "images" / "rooms.svg").read_text()
    heights = {}
    for height, names in re.findall(r'class="name" x="\d+" y="(\d+)">(.*)</text>', drawing):
        heights |= dict.fromkeys(re.findall(r"(\w+)(?:/|\.py)", names), -int(height))
    assert heights.keys() == FLOOR.keys() - {"__init__"}
    for module, room, other in arrows():
        if "__init__" not in (room, other):
            assert heights[other] < heights[room], f"{module} imports {other}"


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_rooms_import_what_their_docstrings_say(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    sentences = [part for part in re.split(r"[.;]\s", text) if re.search(r"\bimports?\b", part)]
    assert sentences
    said = FLOOR.keys() & re.findall(r"\w+", " ".join(sentences))
    if "everything but" in " ".join(sentences):
        said = FLOOR.keys() - said
    assert {other for _, own, other in arrows() if own == room} <= said
