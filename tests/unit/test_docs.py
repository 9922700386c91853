"""The documentation: generated pages are up to date, links lead somewhere, what it names exists, the site builds."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from docs import generate
from harness.processes import ROOT
from rules import cases
from rules.schema import load

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_up_to_date(name):
    assert (generate.HERE / name).read_text() == generate.PAGES[name](), "python -m docs.generate"


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    heads = re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}: no such heading"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/runbook/[!i]*.md")), ids=lambda page: page.stem)
def test_a_page_of_the_runbook_says_everything_and_its_drill_exists(page):
    text = page.read_text()
    heads = ["What you see", "What ORC does by itself", "What you do", "How you check"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == heads
    drills = re.findall(r"`(test_\w+)`", text)
    there = "".join(file.read_text() for file in ROOT.glob("tests/**/test_*.py"))
    assert drills
    assert [name for name in drills if f"def {name}(" not in there] == []


@pytest.mark.parametrize("page", ["how-to/test-a-rule.md", "how-to/write-a-rule.md", "tutorial/first-governed-flow.md"])
def test_rules_and_cases_that_are_shown_work(page, tmp_path):
    shown = re.findall(r"^( *)```yaml\n(.*?)^\1```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    for indent, text in shown:
        text = "".join(line.removeprefix(indent) + "\n" for line in text.splitlines())
        name = "mine.cases.yaml" if "cases" in yaml.safe_load(text) else "mine.yaml"
        (tmp_path / name).write_text(text)
    (tmp_path / "mine.cases.yaml").touch()
    assert load([tmp_path]).rules
    assert [r.differs for table in cases.tables([tmp_path]) for r in cases.run(table) if r.differs] == []


def test_every_command_is_in_the_reference():
    from agent.cli.main import app

    said = (ROOT / "docs/reference/commands.md").read_text()
    names = [f"orc {command.callback.__name__}" for command in app.registered_commands]
    for group in app.registered_groups:
        names += [f"orc {group.name} {command.name}" for command in group.typer_instance.registered_commands]
    assert len(names) > 20
    assert [name for name in names if f"## {name}\n" not in said] == []


def test_every_decision_has_a_page_with_its_number():
    pages = sorted(p.name for p in (ROOT / "docs/decisions").glob("0*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))


@pytest.mark.real
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-b", "html", "docs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runbook/killed-worker.html").exists()
