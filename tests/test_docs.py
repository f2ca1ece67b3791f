"""What the documentation says of itself: its links, its table of rooms, its glossary."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from test_architecture import FOUNDATION, ROOMS, TOOLS

import jaxmodpo

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("launch/*.md"), ROOT / "llms.txt"]
)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
GLOSSARY = ROOT / "docs" / "glossary.md"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def glossary_words() -> list[str]:
    """Return the words that the glossary explains."""
    return re.findall(r"^- \*\*(.+?)\*\*: ", GLOSSARY.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_architecture_page_has_the_table_that_the_code_is_held_to():
    rows = re.findall(r"^\| `(\w+)` \| .+? \|(.*)\|$", ARCHITECTURE, re.MULTILINE)
    assert {room: set(re.findall(r"`(\w+)`", allowed)) for room, allowed in rows} == ROOMS


def test_the_architecture_page_names_files_that_exist():
    names = set(re.findall(r"`(?:jaxmodpo/)?([\w/]+\.py)`", ARCHITECTURE))
    places = (ROOT, ROOT / "jaxmodpo")
    assert [
        name for name in sorted(names) if not any((place / name).is_file() for place in places)
    ] == []
    assert len(names) > 15


def test_the_architecture_page_names_functions_that_are_in_the_file_it_says():
    places = re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", ARCHITECTURE)
    missing: list[str] = []
    for file, names in places:
        source = (ROOT / "jaxmodpo" / file).read_text()
        for name in re.findall(r"`([\w.]+)`", names):
            *_, definition = name.split(".")
            if not re.search(rf"^ *(def|class) {definition}\b", source, re.MULTILINE):
                missing.append(f"{file}: {name}")
    assert missing == []
    assert len(places) > 10


def test_contributing_says_what_every_room_holds():
    table = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = {*ROOMS, *TOOLS, *FOUNDATION} - {"losses"}
    assert [room for room in sorted(rooms) if f"`jaxmodpo/{room}/`" not in table] == []


@pytest.mark.slow(seconds=10)
def test_every_module_that_make_docs_shows_can_be_imported():
    """Otherwise ``make docs`` ends with a traceback, and with no page at all."""
    left_out = re.findall(r"'!(jaxmodpo[\w.]+)'", (ROOT / "Makefile").read_text())
    assert left_out == ["jaxmodpo.study.app.migrations"]
    for module in pkgutil.walk_packages(jaxmodpo.__path__, "jaxmodpo."):
        if not module.name.startswith(left_out[0]):
            importlib.import_module(module.name)


def test_the_glossary_explains_words_once_and_only_those_in_use():
    words = glossary_words()
    assert len(words) >= 40
    assert len({word.lower() for word in words}) == len(words)
    text = "\n".join(page.read_text() for page in PAGES if page != GLOSSARY)
    text += "\n".join(path.read_text() for path in ROOT.glob("jaxmodpo/**/*.py"))
    in_use = " ".join(text.lower().split())
    assert [
        word for word in words if not re.search(rf"\b{re.escape(word.lower())}(s|es)?\b", in_use)
    ] == []


def test_the_citation_names_the_version_that_is_cited():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == jaxmodpo.__version__


def test_make_map_prints_a_whole_sentence_for_every_file():
    # It is a make of its own, and no part of the one that may have started the tests.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    printed = subprocess.run(
        ["make", "--silent", "map"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    sentences = dict(line.split(": ", 1) for line in printed.stdout.splitlines())
    files = ROOT.glob("jaxmodpo/**/*.py")
    assert set(sentences) == {str(path.relative_to(ROOT)) for path in files if path.read_text()}
    cut_off = [file for file, text in sentences.items() if not text.endswith((".", ":", ";"))]
    assert cut_off == []
