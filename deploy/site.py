"""Builds the documentation as a static site with search: run by `make site`.

The pages are the Markdown of the project. Only their links change: on the site README.md is the
home, docs/ is its root, and a linked file that is not a page is served as text.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
_CONFIGURATION = ROOT / "deploy" / "site.yml"
_BESIDE_DOCS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_AS_THEY_ARE = {".md", ".json", ".png", ".svg", ".yaml", ".yml"}

LINK = re.compile(r'(?<=\]\()[^)]+(?=\))|(?<=src=")[^"]+|(?<=srcset=")[^"]+|(?<=href=")[^"]+')
_FENCED = re.compile(r"(^ *```.*?^ *```[^\n]*$)", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [*(ROOT / name for name in _BESIDE_DOCS), *sorted((ROOT / "docs").rglob("*.md"))]


def without_code(text: str) -> str:
    """The text of a page, its blocks of code left out."""
    return _FENCED.sub("", text)


def place(file: Path) -> str:
    """Where a file of the project is on the site."""
    name = file.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    if name in _BESIDE_DOCS:
        return name.lower()
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"files/{name}" + ("" if file.suffix in _AS_THEY_ARE else ".txt")


def written(page: Path, linked: set[Path]) -> str:
    """The page with the links of the site. Adds to `linked` each file that a link leads to."""

    def moved(link: re.Match[str]) -> str:
        path, mark, fragment = link[0].partition("#")
        file = (page.parent / path).resolve()
        if not path or "://" in path or path.startswith("mailto:") or not file.is_file():
            return link[0]
        linked.add(file)
        return os.path.relpath(place(file), Path(place(page)).parent) + mark + fragment

    pieces = _FENCED.split(page.read_text())
    pieces[::2] = [LINK.sub(moved, piece) for piece in pieces[::2]]
    return "".join(pieces)


def _in_menu(entry: Any) -> Iterator[str]:
    """The pages that an entry of the menu names."""
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from _in_menu(inner)


def _style() -> str:
    """The colours of code, light and dark, and what small screens need."""
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs("[data-bs-theme=dark] .highlight")
    return f"""{light}
{dark}
pre code {{ font-size: 0.875rem }}
table {{ display: block; overflow-x: auto }}
:is(p, li) > code, a, h1, h2, h3 {{ overflow-wrap: anywhere; white-space: normal }}
"""


def build(into: Path) -> str:
    """Writes the site to `into`, which is replaced. Returns what is wrong, "" if nothing is."""
    menu = _CONFIGURATION.read_text().partition("\nnav:")[2].partition("\ntheme:")[0]
    listed = {place(page) for page in pages() if not re.match(r"\d", page.name)}
    if amiss := set(_in_menu(yaml.safe_load(menu))) ^ listed:
        return f"{_CONFIGURATION.name}: menu and pages differ in {', '.join(sorted(amiss))}\n"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        shutil.copy(_CONFIGURATION, directory / "properdocs.yml")
        linked: set[Path] = set()
        for page in pages():
            target = directory / "docs" / place(page)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(written(page, linked))
        for file in linked - set(pages()):
            target = directory / "docs" / place(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        (directory / "docs" / "site.css").write_text(_style())
        done = subprocess.run(
            [sys.executable, "-m", "properdocs", "build", "--strict"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return done.stdout + done.stderr
        shutil.rmtree(into, ignore_errors=True)
        shutil.move(directory / "site", into)
    return ""


def main() -> int:
    """Writes the site, or what keeps it from being built."""
    if faults := build(SITE):
        sys.stderr.write(faults)
        return 1
    sys.stdout.write("site/index.html is written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
