"""The documentation: generated pages are up to date, links lead somewhere, commands exist."""

from __future__ import annotations

import re

import pytest

from docs import generate
from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_up_to_date(name):
    assert (generate.HERE / name).read_text() == generate.PAGES[name]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_every_command_is_in_the_reference():
    from agent.cli.main import app, ledger_app
    from agent.cli.rules import rules_app

    said = (ROOT / "docs/reference/commands.md").read_text()
    commands = [*app.registered_commands, *ledger_app.registered_commands, *rules_app.registered_commands]
    names = [(command.name or command.callback.__name__.rsplit("_", 1)[-1]).rstrip("_") for command in commands]
    assert [name for name in names if name not in said] == []


def test_every_decision_has_a_page_with_its_number():
    pages = sorted(p.name for p in (ROOT / "docs/decisions").glob("*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
