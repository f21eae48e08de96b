from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSampleError
from model.training.data.importers.literals import LONGEST, literal_list


@given(st.lists(st.one_of(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.lists(st.text()))))
def test_lists_come_back_as_python_writes_them(values: list[object]) -> None:
    assert literal_list(repr(values), "x") == values


@pytest.mark.parametrize(
    "cell",
    ["__import__('os').getcwd()", "[open('x')]", "(1, 2)", "7", "[1", "", None, 3, "[" * 5000 + "]" * 5000, "['\0']"],
)
def test_what_is_no_list_of_plain_values_is_refused(cell: object) -> None:
    with pytest.raises(BadSampleError, match="no list in `x`"):
        literal_list(cell, "x")


def test_a_cell_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(BadSampleError, match="a list too long"):
        literal_list(f"[{'0,' * (LONGEST // 2)}]", "x")
