"""The import graph: which room may import which, no circles, and what may not be imported when a module loads.

Also where tests stand, and how long their names are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS: Mapping[str, frozenset[str]] = {
    "core": frozenset(),
    "manifests": frozenset({"core"}),
    "filters": frozenset({"core", "manifests"}),
    "clustering": frozenset({"core", "manifests"}),
    "captioners": frozenset({"core", "manifests"}),
    "model": frozenset({"core", "manifests"}),
    "pipeline": frozenset({"core", "manifests", "filters", "clustering", "captioners", "model"}),
}
"""A room and the rooms that it may import."""

PIPELINE: Mapping[str, frozenset[str]] = {
    "pools": frozenset(),
    "stages": frozenset(),
    "recipe_file": frozenset({"pools", "stages"}),
    "recipe": frozenset({"pools", "stages", "recipe_file"}),
    "execution": frozenset({"pools", "stages", "recipe_file", "recipe"}),
    "publishing": frozenset({"pools", "stages", "recipe_file", "recipe", "execution"}),
    "reporting": frozenset({"pools", "stages", "recipe_file", "recipe", "execution", "publishing"}),
    "notebook": frozenset({"pools", "stages", "recipe_file", "recipe", "execution", "reporting"}),
    "serving": frozenset(),
    "commands": frozenset(
        {"pools", "stages", "recipe_file", "recipe", "execution", "publishing", "reporting", "serving"}
    ),
    "__main__": frozenset({"commands"}),
}
"""The same inside of `pipeline/`."""

HEAVY: Mapping[str, frozenset[str]] = {
    "core": frozenset({"ray", "torch", "transformers", "faiss", "open_clip", "av"}),
    "manifests": frozenset({"ray", "torch", "transformers", "faiss", "open_clip"}),
    "filters": frozenset({"ray", "torch", "transformers", "open_clip"}),
    "clustering": frozenset({"ray", "torch", "faiss"}),
    "captioners": frozenset({"ray", "torch", "transformers", "lmdeploy"}),
    "model": frozenset({"ray", "transformers", "peft", "av", "pyarrow", "polars"}),
    "pipeline": frozenset({"ray", "torch", "transformers", "faiss", "open_clip", "matplotlib", "jinja2"}),
}
"""Packages that a room imports inside of functions only, so that the command line answers at once, and the model does
without those that it does not use."""


VALUE_ERRORS = frozenset(
    {
        "model.attention",
        "model.caption_metrics",
        "model.layout",
        "model.packed_row",
        "model.videollama3",
        "model.vision",
    }
)
"""Modules whose public functions raise ValueError: tensors or lists of a caller do not fit each other. Their Raises say
so. A user's mistake is a UserError, and a bad sample a BadSampleError."""

CROSSING = frozenset({"e2e", "cluster", "compatibility", "benchmarks", "browser", "page", "docs", "recipes"})
"""Folders of tests that mirror no room."""

LONGEST_NAME = 60


def modules() -> dict[str, Path]:
    """Every module of the rooms, by its dotted name."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()

TESTS = [file for file in sorted(ROOT.glob("tests/**/test_*.py")) if file != Path(__file__)]


def texts_with(part: str) -> dict[str, str]:
    """The text of every module that has this part in it: the others need not be parsed, which takes longer."""
    texts = {module: file.read_text() for module, file in MODULES.items()}
    return {module: text for module, text in texts.items() if part in text}


def imports(tree: ast.AST, everywhere: bool = True) -> Iterator[str]:
    """The dotted names that a module imports; `everywhere`: inside of functions and for type checkers too."""
    nodes = ast.walk(tree) if everywhere else _at_load(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_load(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_type_checkers(node):
            continue
        yield node
        yield from _at_load(node)


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def edges(module: str) -> set[str]:
    """The modules of the rooms that a module imports."""
    targets = set()
    for name in imports(ast.parse(MODULES[module].read_text())):
        target = name if name in MODULES else name.rpartition(".")[0]
        if target in MODULES and target != module:
            targets.add(target)
    return targets


@cache
def graph() -> dict[str, set[str]]:
    """What each module imports of the rooms."""
    return {module: edges(module) for module in MODULES}


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_rooms_below_it(room: str) -> None:
    upward = {
        (module, target)
        for module, targets in graph().items()
        for target in targets
        if module.split(".")[0] == room and target.split(".")[0] not in ROOMS[room] | {room}
    }
    assert upward == set()


@pytest.mark.parametrize("room", PIPELINE)
def test_room_of_the_pipeline_imports_only_those_below_it(room: str) -> None:
    upward = {
        (module, target)
        for module, targets in graph().items()
        for target in targets
        if module.startswith(f"pipeline.{room}") and target.startswith("pipeline.")
        if target.split(".")[1] not in PIPELINE[room] | {room}
    }
    assert upward == set()


def test_every_module_of_the_pipeline_is_in_a_room() -> None:
    assert {module.split(".")[1] for module in MODULES if module.startswith("pipeline.")} | {"__main__"} == set(
        PIPELINE
    )


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circles(graph()) == []


def test_circles_lists_the_modules_of_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that can all reach each other, sorted."""
    reach = {module: reachable(module, graph) for module in graph}
    groups = {
        tuple(sorted(m for m in reach[module] if module in reach[m])) for module in graph if module in reach[module]
    }
    return sorted(map(list, groups))


def reachable(module: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        for target in graph[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


@pytest.mark.parametrize("room", HEAVY)
def test_room_loads_heavy_packages_in_functions_only(room: str) -> None:
    loaded = {
        (module, name.split(".")[0])
        for module, file in MODULES.items()
        if module.split(".")[0] == room
        for name in imports(ast.parse(file.read_text()), everywhere=False)
    }
    assert {(module, name) for module, name in loaded if name in HEAVY[room]} == set()


def test_no_top_level_package_is_outside_of_the_rooms() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert packages == set(ROOMS)


def test_stages_are_distinguished_by_class_not_by_hasattr() -> None:
    """`hasattr(stage, …)` would make a contract that no base class states."""
    probes = []
    for module, code in texts_with("attr(").items():
        for node in ast.walk(ast.parse(code)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("hasattr", "getattr")
            ):
                target = ast.unparse(node.args[0])
                if target.rpartition(".")[2] in ("stage", "_stage", "step"):
                    probes.append(f"{module}: {ast.unparse(node)}")
    assert probes == []


def test_value_errors_are_raised_for_callers_of_the_model_only() -> None:
    """Validators of pydantic may raise them."""
    raising = {module for module, code in texts_with("ValueError").items() if raises_value_error(ast.parse(code))}
    assert raising - VALUE_ERRORS == set()


@pytest.mark.parametrize("decorator", ["", "@field_validator('a')\n", "@model_validator(mode='after')\n"])
def test_value_error_is_seen_outside_of_validators(decorator: str) -> None:
    code = f"{decorator}def f():\n    if True:\n        raise ValueError('x')"
    assert raises_value_error(ast.parse(code)) == (not decorator)


def raises_value_error(tree: ast.AST) -> bool:
    """Whether code outside of pydantic's validators has `raise ValueError`."""
    for node in ast.iter_child_nodes(tree):
        decorators = [ast.unparse(each) for each in getattr(node, "decorator_list", [])]
        if any(each.startswith(("field_validator", "model_validator")) for each in decorators):
            continue
        if isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).startswith("ValueError"):
            return True
        if raises_value_error(node):
            return True
    return False


def test_names_of_tests_have_at_most_60_characters() -> None:
    files = [*TESTS, Path(__file__), *ROOT.glob("examples/**/test_*.py")]
    names = [name for file in files for name in re.findall(r"^ *(?:async )?def (\w+)", file.read_text(), re.MULTILINE)]
    assert len(names) > 1000
    assert [name for name in names if name.startswith("test_") and len(name) > LONGEST_NAME] == []


def test_files_of_tests_mirror_the_source() -> None:
    files = [file.relative_to(ROOT / "tests") for file in TESTS]
    assert len(files) > 100
    assert [str(file) for file in files if file.parts[0] not in CROSSING and not mirrors_a_module(file)] == []


@pytest.mark.parametrize(
    ("file", "mirrored"),
    [
        ("core/test_text.py", True),
        ("model/training/data/test_annotations_files.py", True),
        ("captioners/test_engines.py", True),
        ("core/test_texts.py", False),
        ("core/test_kmeans.py", False),
        ("test_text.py", False),
    ],
)
def test_file_of_tests_mirrors_a_module_by_folder_and_name(file: str, mirrored: bool) -> None:
    assert mirrors_a_module(Path(file)) == mirrored


def mirrors_a_module(file: Path) -> bool:
    """Whether `room/test_X.py` has a module or package `room/Y` such that X is Y or begins with `Y_`."""
    *folders, _ = file.parts
    topic = file.stem.removeprefix("test_")
    words = topic.split("_")
    names = ("_".join(words[:count]) for count in range(1, len(words) + 1))
    return any(".".join([*folders, name]) in MODULES for name in names)


def test_names_of_the_architecture_page_exist() -> None:
    """Its last column names files, relative to any folder above them, and what they define."""
    page = (ROOT / "docs/architecture.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|") and ".py" in line]
    assert len(rows) > 15
    missing = []
    for text in re.findall(r"`([^`]*)`", "".join(line.rstrip("|").rpartition("|")[2] for line in rows)):
        file, _, name = text.partition(": ")
        if not file.endswith(".py"):
            continue
        sources = [path.read_text() for path in MODULES.values() if str(path).endswith(f"/{file}")]
        last = name.rpartition(".")[2]
        if not any(not last or re.search(rf"\b(def|class) {last}\b", source) for source in sources):
            missing.append(text)
    assert missing == []
