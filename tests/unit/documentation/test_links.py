"""The Markdown: every relative link leads to a file, every fragment to a heading of it, and lists
look the same on GitHub and on the site."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from deploy.site import LINK, ROOT, pages, without_code

HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
EXPLICIT = re.compile(r'<a (?:id|name)="([^"]+)"')


def anchors(page: Path) -> set[str]:
    """As GitHub names them: lower case, punctuation dropped, hyphens for blanks, numbered."""
    text = page.read_text()
    seen: Counter[str] = Counter()
    found = set(EXPLICIT.findall(text))
    for heading in HEADING.findall(
        re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    ):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


EVERY_PAGE = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


@EVERY_PAGE
def test_every_link_of_a_page_leads_somewhere(page: Path):
    for target in LINK.findall(without_code(page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), f"{target}: no such file (the site has no page for a folder)"
        if fragment:
            assert linked.suffix == ".md", target
            assert fragment in anchors(linked), f"{target}: no such heading"


@EVERY_PAGE
def test_what_belongs_to_an_item_of_a_list_is_indented_by_four(page: Path):
    """GitHub takes less for it too; the site does not."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^ {1,3}(?:```|[-*] |\d+\. ).*", text, re.MULTILINE) == []
    assert re.findall(r"^\n {1,3}\S.*", text, re.MULTILINE) == []
