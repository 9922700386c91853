"""A YAML node that knows where it stands, so that every error names the file and the line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rules.errors import RuleError as RuleError


def compose(path: Path) -> Node | None:
    """The top of a YAML file; None when it is empty. Raises RuleError."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise RuleError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RuleError(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise RuleError(
            f"{path}:{mark.line + 1 if mark else '?'}: not YAML: {getattr(error, 'problem', error)}"
        ) from error
    return None if root is None else Node(path, root, "the file")


@dataclass(frozen=True)
class Node:
    """A YAML node with the place it stands at."""

    path: Path
    node: yaml.Node
    what: str

    @property
    def where(self) -> str:
        return f"{self.path}:{self.node.start_mark.line + 1}"

    def error(self, text: str) -> RuleError:
        return RuleError(f"{self.where}: {self.what}: {text}")

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    def fields(self, known: set[str], required: set[str]) -> dict[str, Node]:
        out = {key: Node(self.path, value, self.what) for key, value in self.pairs()}
        for key in out:
            if key not in known:
                raise self.error(f"unknown field {key!r}; allowed are {', '.join(sorted(known))}")
        for key in sorted(required - set(out)):
            raise self.error(f"{key!r} is missing")
        return out

    def pairs(self) -> list[tuple[str, yaml.Node]]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("a mapping of names to values is expected here")
        names = [str(key.value) for key, _ in self.node.value]
        for name in names:
            if names.count(name) > 1:
                raise self.error(f"{name!r} is given twice")
        return [(str(key.value), value) for key, value in self.node.value]

    def items(self) -> list[Node]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("a list is expected here")
        return [Node(self.path, item, self.what) for item in self.node.value]

    def value(self) -> Any:
        try:
            return yaml.SafeLoader("").construct_object(self.node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            raise self.error(f"not a value: {getattr(error, 'problem', error)}") from error

    def text(self) -> str:
        value = self.value()
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"a text is expected, not {value!r}")
        return value.strip()
