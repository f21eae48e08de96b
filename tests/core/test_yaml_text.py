"""YAML of users and strangers: what is wrong is one line with its position, and nothing fills memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from core.errors import UserError
from core.yaml_text import load_yaml

BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
MISTAKES = {
    "cycle": ("a: &a [*a]", "line 1, column 8: an alias of what it stands in"),
    "cycle_of_keys": ("a: &a\n  b: *a\n", "line 2, column 6: an alias of what it stands in"),
    "bomb": (BOMB, "line 6, column 8: more than 100,000 values, aliases included"),
    "many": ("[" + "0," * 100_001 + "]", "line 1, column 200002: more than 100,000 values, aliases included"),
    "deep": ("[" * 100_000, "line 1, column 51: nested more than 50 deep"),
    "hexadecimal": ("x:\n  0x" + "f" * 5000, "line 2, column 3: a number of 5,002 characters"),
    "decimal": ("x: " + "9" * 5000, "line 1, column 4: a number of 5,000 characters"),
    "date": ("x: 2020-13-45", "line 1, column 4: no valid timestamp"),
    "bool": ("x: !!bool hf_key", "line 1, column 4: no valid bool"),
    "int": ('x: !!int ""', "line 1, column 4: no valid int"),
    "unclosed": ("a: 1\nb: {", "line 2, column 5: expected the node content, but found '<stream end>'"),
    "nul": ("a: 1\nb: \0", "line 2: a control character; delete it"),
    "object": ("x: !!python/object/apply:os.system [ls]", "line 1, column 4: could not determine a constructor"),
}


@pytest.mark.parametrize(
    "case", [*(case for case in MISTAKES if case != "many"), pytest.param("many", marks=pytest.mark.thorough)]
)
def test_mistake_in_yaml_is_a_one_line_error_with_its_position(case: str) -> None:
    text, said = MISTAKES[case]
    began = time.monotonic()
    with pytest.raises(UserError) as raised:
        load_yaml(text, "r.yaml")
    assert str(raised.value).startswith(f"r.yaml: not YAML: {said}")
    assert "hf_key" not in str(raised.value)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(("data", "line"), [(b"a: 1\nb: \xff", 2), ("ä: 1\nb: ö".encode("latin-1"), 1)])
def test_yaml_that_is_not_utf_8_is_an_error_with_its_line(data: bytes, line: int) -> None:
    with pytest.raises(UserError, match=f"^r.yaml: not YAML: line {line}: not UTF-8: write it as UTF-8$"):
        load_yaml(data, "r.yaml")


def test_yaml_in_its_ordinary_forms_is_read() -> None:
    text = "a: &a {x: 1, y: 0x10}\nb: {<<: *a, y: 2.5}\nc: [*a, *a]\nd: ö\n"
    expected = {"a": {"x": 1, "y": 16}, "b": {"x": 1, "y": 2.5}, "c": [{"x": 1, "y": 16}] * 2, "d": "ö"}
    assert load_yaml(text, "r") == load_yaml(text.encode(), "r") == load_yaml(text.encode("utf-16"), "r") == expected
    assert load_yaml("", "r") is None


@pytest.mark.parametrize("case", ["cycle", "bomb", "deep", "hexadecimal", "date", "nul"])
@pytest.mark.parametrize("kind", ["pipeline", "training", "run"])
def test_invalid_yaml_in_any_recipe_is_a_one_line_error(tmp_path: Path, kind: str, case: str) -> None:
    from manifests import open_run
    from model.training.recipe import load_recipe as load_training
    from pipeline.recipe import load_recipe

    text, said = MISTAKES[case]
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    opened = {"run": lambda: open_run(tmp_path), "training": lambda: load_training(file)}
    opened["pipeline"] = lambda: load_recipe(str(file))
    with pytest.raises(UserError) as raised:
        opened[kind]()
    assert str(raised.value).startswith(f"{file}: not YAML: {said}")
