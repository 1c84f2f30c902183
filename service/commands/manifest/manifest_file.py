"""Reads the file: strict YAML, with secrets from the environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

import yaml

from service.domain.errors import CoursewireError

_REFERENCE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


class ManifestError(CoursewireError):
    """The file cannot be applied."""


class _Loader(yaml.SafeLoader):
    """Leaves times as text, and refuses duplicate names."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with unique names."""
        names: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in names:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} is given twice", problem_mark=key.start_mark
                )
            names.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0] != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_manifest(
    text: str, environ: Mapping[str, str], keys: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """The items under each of `keys` in the file; each item has the key field that `keys` names,
    with a unique value. `${NAME}` stands for the environment variable, `$${` for `${`. Raises
    ManifestError."""
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - it is a safe one
    except yaml.YAMLError as error:
        raise ManifestError(f"the file is not YAML: {error}") from error
    problems: list[str] = []
    document = _filled(document, environ, problems)
    if not isinstance(document, dict):
        raise ManifestError(f"the file must contain {' and '.join(keys)}")
    if unknown := [f"{one}{did_you_mean(one, keys)}" for one in document if one not in keys]:
        raise ManifestError(
            f"the file must contain {' and '.join(keys)}, and nothing else: {', '.join(unknown)}"
        )
    for name, items in document.items():
        problems += _faults(name, keys[name], items)
    if problems:
        raise ManifestError("\n  ".join(["the file cannot be applied:", *dict.fromkeys(problems)]))
    return document


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The most similar known name, as a question."""
    like = get_close_matches(str(name), known, 1)
    return f" (did you mean {like[0]}?)" if like else ""


def _filled(value: Any, environ: Mapping[str, str], problems: list[str]) -> Any:
    def fill(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return match[0][1:]
        if name not in environ:
            problems.append(f"{name} is not set in the environment; set it, or write $${{{name}}}")
        return environ.get(name, "")

    match value:
        case str():
            return _REFERENCE.sub(fill, value)
        case list():
            return [_filled(one, environ, problems) for one in value]
        case dict():
            return {name: _filled(one, environ, problems) for name, one in value.items()}
    return value


def _faults(name: str, key: str, items: Any) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        return [f"{name} must be a list of items"]
    found = []
    seen: set[Any] = set()
    for position, item in enumerate(items):
        value = item.get(key)
        if not isinstance(value, str) or not value:
            found.append(f"{name}[{position}] has no {key}, which identifies the item; add it")
        elif value in seen:
            found.append(f"{name}[{position}] has the {key} of an earlier item: {value}")
        seen.add(value if isinstance(value, str) else None)
    return found
