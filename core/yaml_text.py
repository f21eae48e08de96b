"""Parse YAML that a user or a stranger wrote. Depth, size and aliases are bounded, and every mistake is one line."""

from __future__ import annotations

from typing import Any

import yaml

from core.errors import UserError

_MOST_BYTES = 16 << 20
_MOST_VALUES = 100_000  # with every alias replaced by what it stands for
_DEEPEST = 50
_LONGEST_NUMBER = 200  # characters; every such integer can be printed and made a float


def load_yaml(written: str | bytes, where: str) -> Any:
    """Parse one YAML document into mappings, lists, texts, numbers, booleans, dates and None.

    Args:
        written: The text, or its bytes in UTF-8 or in UTF-16 with a byte order mark.
        where: Name of the text for errors.

    Raises:
        UserError: It is not YAML, or beyond the bounds. The message gives the position. It does not quote the text,
            which may hold a key.
    """
    if len(written) > _MOST_BYTES:
        raise UserError(f"{where}: not YAML of ours: it is longer than {_MOST_BYTES:,} bytes")
    try:
        return yaml.load(written if isinstance(written, str) else _decoded(written), _Loader)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{where}: not YAML: line {line}: not {error.encoding.upper()}: write it as UTF-8") from error
    except yaml.reader.ReaderError as error:
        text = written if isinstance(written, str) else _decoded(written)
        line = text[: error.position].count("\n") + 1
        raise UserError(f"{where}: not YAML: line {line}: a control character; delete it") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML: {_problem(error)}") from error


def _decoded(written: bytes) -> str:
    return written.decode("utf-16" if written[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")


def _problem(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{position}{problem or type(error).__name__}"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with bounds, and with a position in the errors of all values."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # number of values below a finished node, by its id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias, mark, before = self.check_event(yaml.AliasEvent), self.peek_event().start_mark, self._values  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested more than {_DEEPEST} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias of what it stands in", mark)
        self._values += self._sizes[id(node)] if is_alias else 1
        if self._values > _MOST_VALUES:
            raise yaml.composer.ComposerError(None, None, f"more than {_MOST_VALUES:,} values, aliases included", mark)
        self._sizes.setdefault(id(node), self._values - before)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and len(node.value) > _LONGEST_NUMBER:
            problem = f"a number of {len(node.value):,} characters"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            # Such as 2020-13-45, or `!!bool maybe`. PyYAML checks only the form of a value.
            raise yaml.constructor.ConstructorError(None, None, f"no valid {kind}", node.start_mark) from error
