"""Refuses sentences that a busy reader has to read twice: run by `make check`.

`prose.py [PATH ...]` reads these files and folders, or everything: Markdown, the descriptions in
docs/openapi.json, and the docstrings, comments and log events of the code.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs")
CODE = ("service", "workers", "deploy")
MAX_WORDS = 40

_VERB = r"(?:is|are|was|were|has|have|had|can|cannot|could|may|must|will|would|do|does|did)"
_PRONOUN = r"(?:it|they|there|this|these|those|nobody|he|she|we|you)"
_SUBJECT = r"(?!example\b)(?:(?!that|which|who|whose|where)[\w'-]+ ){1,3}"
_THING = (
    r"(?:API|alert|client|Coursewire|delivery|event|integration|key|log|metric|outbox|page|poll"
    r"|process|proxy|queue|receiver|Redis|scheduler|script|server|service|subscription|table|token"
    r"|Valkey|worker)s?"
)
_LIVING = (
    r"(?:knows?|remembers?|thinks?|wants?|likes?|forgets?|hears?|minds?|wish(?:es)?|hopes?|feels?"
    r"|stumbles?|lives?)"
)
_OPENED = r"(?:(?:key|keys|scope|scopes|secret|secrets|token|tokens)(?: does not| cannot| may)?)"

# Patterns that a sentence must not contain, with the alternatives.
RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (rf", for (?:{_PRONOUN}\b|{_SUBJECT}{_VERB}\b)", 'write "because"'),
        (r"\b(?:but|save) for\b", 'write "except"'),
        (r"(?<!there )\b(?:is|are|was|were|be) no (?!longer\b|more than\b)", 'write "is not"'),
        (r"\bno more(?! than\b|\s+\w)", 'write "no longer"'),
        (r"\b(?:whoever|whosoever|those who|he who)\b", "name the one who acts"),
        (r"\b(?:anew|afresh|lest|hence|thence|whereof|thereof|therein|withal)\b", "plain English"),
        (r"\b(?:tell|tells|telling|told)\b", "report, log, announce, show or explain"),
        (r"\b(?:says?|said|saying)\b", "state, list, show, return or explain"),
        (r"\bbeliev(?:e|es|ed|ing|able)\b", "accept or trust"),
        (r"\bg[ia]v(?:e|es|en|ing) up\b", "stop, discard or abandon"),
        (r"\b(?:see|sees|seen|saw|seeing) to\b", "fix or handle"),
        (r"\b(?:make|makes|making) of\b", "state what happens"),
        (r"\b(?:comes?|coming|came) about\b", "happen"),
        (r"\b(?:comes?|coming|came) to (?:fail|be|have|know)\b", "start to"),
        (r"\b(?:go|goes|going|went|gone) on\b", "continue"),
        (r"\bg(?:e|o)t(?:s|ting)? about\b", "leak"),
        (r"\bas (?:many|much|few|little) as may be\b", "name the limit"),
        (rf"\b{_OPENED} opens?\b|\bopens (?:nothing|everything)\b", "authorize or decrypt"),
        (r"\b(?:un)?seal(?:s|ed|ing)?\b", "encrypt or decrypt"),
        (r"\b(?:walks?|walked|walking)\b", "poll"),
        (r"\b(?:lane|deed|glimpse)s?\b", "outbox; audit record; state"),
        (rf"\b{_THING} {_LIVING}\b", "name what the thing stores, needs or does"),
    )
)
# At the start of a sentence that is not a question.
_FREE_RELATIVE = re.compile(r"(?:What|Whatever|Whichever|Who|Whom)\b(?!.*\?$)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[A-Z0-9])|\s*<br>\s*")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|approx)\.")
_CODE = (
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1[^\n]*$", re.DOTALL | re.MULTILINE),
    re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL),
)
_BLOCK = re.compile(r"\s*(?:(?:[-*+]|\d+\.)\s+|>\s*|#+\s+)")


_LEVELS = {"debug", "info", "warning", "error", "critical"}


class Fault(NamedTuple):
    """Where a sentence is, and what is wrong with it."""

    line: int
    message: str
    sentence: str


def paragraphs(text: str) -> Iterator[tuple[int, bool, str]]:
    """The line, whether it is a heading, and the text of each paragraph, item and table cell."""
    for code in _CODE:  # lines stay where they are
        text = code.sub(lambda found: "X" + "\n" * found[0].count("\n"), text)
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^]]*)\](?:\([^)]*\)|\[[^]]*\])", r"\1", text)
    start, gathered = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        begins = _BLOCK.match(line)
        if not line.strip() or begins or line.startswith("|"):
            if gathered:
                yield start, False, gathered
            start, gathered = number + (not line.strip()), ""
        if line.startswith("|"):
            yield from ((number, False, cell.strip()) for cell in line.strip("|").split("|"))
        elif line.lstrip().startswith("#"):
            yield number, True, line.lstrip("# ")
        else:
            gathered = f"{gathered} {line[begins.end() :] if begins else line.strip()}".strip()


def faults(text: str) -> Iterator[Fault]:
    """The faults in the sentences of a page, in their order."""
    for line, heading, paragraph in paragraphs(text):
        for sentence in _SENTENCE_END.split(_ABBREVIATION.sub(r"\1", paragraph)):
            plain = sentence.replace("*", "").strip()
            for pattern, advice in RULES:
                if found := pattern.search(plain):
                    yield Fault(line, f'"{found[0].strip(", ")}": {advice}', plain)
            if not heading and _FREE_RELATIVE.match(plain):
                yield Fault(line, "begins with a free relative: name the thing that acts", plain)
            words = len(re.findall(r"[\w'/-]+", plain))
            if words > MAX_WORDS:
                yield Fault(line, f"has {words} words: divide it, 25 are long", plain)


def described(document: object) -> Iterator[str]:
    """The titles, summaries and descriptions in an OpenAPI document."""
    if isinstance(document, list):
        for item in document:
            yield from described(item)
    elif isinstance(document, dict):
        for name, value in document.items():
            if isinstance(value, str) and name in {"title", "summary", "description"}:
                yield value.replace("; ", "\n\n")
            yield from described(value)


def written(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings, comments and log events of a module, each with its line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(ast.Constant(str(text))):
                yield node.lineno, text
            case ast.Call(
                ast.Attribute(ast.Name("_log" | "log"), level), [ast.Constant(str(text)), *_]
            ):
                if level in _LEVELS:
                    yield node.lineno, text
    begun, gathered, column = 0, "", -1
    for token in tokenize.generate_tokens(io.StringIO(source + "\n").readline):
        if token.type == tokenize.COMMENT:
            if token.start != (begun + gathered.count("\n"), column):
                yield begun, gathered
                begun, gathered, column = token.start[0], "", token.start[1]
            gathered += token.string.lstrip("# ") + "\n"
    yield begun, gathered


def read(path: Path) -> Iterator[Fault]:
    """The faults in a file."""
    content = path.read_text()
    if path.suffix == ".md":
        yield from faults(content)
    elif path.suffix == ".json":
        for text in dict.fromkeys(described(json.loads(content))):
            yield from faults(text)
    else:
        for begun, text in written(content):
            for line, message, sentence in faults(text):
                if "words:" not in message:  # a docstring may list many fields
                    yield Fault(begun + line - 1, message, sentence)


def main(arguments: list[str]) -> int:
    """Prints each fault with its place; 1 if there is any."""
    named = [Path(one).resolve() for one in arguments] or [
        *(ROOT / one for one in (*PAGES, *CODE)),
        ROOT / "docs/openapi.json",
    ]
    count = 0
    for root in named:
        paths = sorted(p for p in root.rglob("*") if p.suffix in {".md", ".py"})
        for page in paths if root.is_dir() else [root]:
            for line, message, sentence in read(page):
                place = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
                sys.stdout.write(f"{place}:{line}: {message}\n    {sentence[:160]}\n")
                count += 1
    if count:
        sys.stdout.write(f"{count} sentences to rewrite\n")
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
