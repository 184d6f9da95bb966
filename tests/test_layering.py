"""The arrows of the design: what may import what."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = [
    {"ops", "calibration"}, {"pipelines"}, {"runtime"}, {"ending"}, {"steps"}, {"glyphs"}, {"plots"}, {"datasets"},
    {"models"}, {"cost"}, {"evaluation"}, {"eda"}, {"training"}, {"explain"}, {"results"}, {"inference"}, {"parity"},
    {"throughput"}, {"report"}, {"experiment"}, {"sweep"}, {"benchmark", "cli"}, {"__main__"},
]  # fmt: skip
"""Each may import itself and what is before it."""
MOST_MODULES = 12


def room_of(name):
    """Name the room of a dotted name: the package below dogs_accel, or pipelines; None for what is not ours."""
    first, *rest = name.split(".")
    return (rest or ["__init__"])[0] if first == "dogs_accel" else first if first == "pipelines" else None


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "dogs_accel":
            found |= {f"dogs_accel.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def modules():
    paths = [path for package in ("pipelines", "dogs_accel") for path in sorted((ROOT / package).rglob("*.py"))]
    return [(path, ".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in paths]


MODULES = [pytest.param(path, name, id=name) for path, name in modules()]


@pytest.mark.parametrize(("path", "name"), MODULES)
def test_a_module_imports_nothing_from_a_later_room(path, name):
    place = {room: place for place, rooms in enumerate(ROOMS) for room in rooms} | {"__init__": -1}
    own = place[room_of(name)]
    rooms = {other: room_of(other) for other in imports(path)}
    assert {other for other, room in rooms.items() if room is not None and place[room] > own} == set()


@pytest.mark.parametrize(("path", "name"), MODULES)
def test_the_packages_import_neither_their_tests_nor_their_benchmarks(path, name):
    assert not {other for other in imports(path) if other.split(".")[0] in ("bench", "tests", "conftest")}


def public_names(path):
    """What a module defines at its top, but for names that begin with an underscore and type variables."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
        elif isinstance(node, ast.Assign) and "TypeVar(" not in ast.unparse(node.value):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize(("path", "name"), MODULES)
def test_a_name_with_an_underscore_stays_in_its_module(path, name):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and room_of(node.module or "")]
    assert [alias.name for node in ours for alias in node.names if alias.name.startswith("_")] == []


def test_the_packages_hold_modules_and_templates_alone():
    """A merge leaves other files behind, and the wheel would take them along."""
    paths = [path for package in ("pipelines", "dogs_accel") for path in (ROOT / package).rglob("*") if path.is_file()]
    others = [path for path in paths if path.parent.name not in ("__pycache__", "templates")]
    assert {path.suffix for path in others} <= {".py", ".so"}


def test_one_name_means_one_thing():
    places = {}
    for path, name in modules():
        for public in public_names(path):
            places.setdefault(public, []).append(name)
    places.pop("main")  # of each of the two commands
    assert {public: names for public, names in places.items() if len(names) > 1} == {}


FILE_NAME = re.compile(r"[\w{}/.-]*\w\.(csv|json|png|npz|pt|html|npy|pt2|onnx)")


def test_the_name_of_a_file_is_written_once():
    places = {}
    for path, name in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # What an f-string has around its values is a part of a name; docstrings are prose.
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and FILE_NAME.fullmatch(node.value):
                places.setdefault(node.value, []).append(name)
    assert {file: names for file, names in places.items() if len(names) > 1} == {}


def test_the_loaders_stand_alone_but_for_the_operators():
    ours = {
        other for path, name in modules() if room_of(name) == "pipelines"
        for other in imports(path) if other.split(".")[0] == "dogs_accel"
    }  # fmt: skip
    assert ours == {"dogs_accel.ops"}


def test_no_package_has_too_many_modules():
    folders = {path.parent for path, _ in modules()}
    sizes = {folder: len([path for path in folder.glob("*.py") if path.stem != "__init__"]) for folder in folders}
    assert {str(folder): size for folder, size in sizes.items() if size > MOST_MODULES} == {}
