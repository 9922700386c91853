"""Tasks whose names would write on the terminals, pages and artifacts of those who look at them."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from agent.ledger.ledger import Ledger
from agent.mind.notices import decision_rows, summary
from agent.model.plain_text import printable
from agent.model.plans import Decision, Option, RuleWord
from agent.planner.explain import read_aloud
from agent.report import page
from agent.report.run import MovedTask, report
from bench.cli_stage import HOLD, RUN, Stage, fill, stage

NAMES = (
    "[/x]",
    "[link=https://evil]approve[/link]",
    "\x1b[2K\x1b[1Aapproved",
    "\x9b2Jc1",
    "a`b`![x](https://evil/y)",
    "a|b",
    "<script>alert(1)</script>",
    "two\nlines",
    "turned\u202eround",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Stage:
    with stage(tmp_path_factory.mktemp("home"), NAMES) as made:
        yield made


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("why",),
        ("explain", RUN),
        ("decisions",),
        ("report", RUN),
        ("approve", HOLD, "--by", "\x1b[2K"),
        ("reject", HOLD, "--by", "me"),
        ("override", HOLD, "--pool", "spot", "--by", "me"),
        ("explain", "\x1b[2K[/x]"),
    ],
    ids=lambda command: printable(" ".join(command)),
)
def test_names_are_text_on_a_terminal(home, command):
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *command],
        env=home.env,
        cwd=home.home,
        capture_output=True,
        check=False,
    )
    out = (done.stdout + done.stderr).decode()
    assert "Traceback" not in out
    assert done.returncode == (2 if command[-1].endswith("[/x]") else 0), out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
    if command[0] in ("why", "explain", "decisions", "report") and done.returncode == 0:
        shown = re.sub(r"[\s│┃]", "", out)
        for name in NAMES[:3]:
            assert re.sub(r"\s", "", printable(name)) in shown


def test_a_decision_read_aloud_has_no_line_of_its_names_making():
    option = Option(pool="spot", kind="spot", why_not="no\n  approved by root")
    decision = Decision(
        group="g",
        task_class="c",
        name="x\n  approved by root",
        root_run="",
        flow_run="",
        verb="wait",
        pool="spot",
        reason="\x1b[2K",
        options=(option,),
        verdicts=(RuleWord(rule="r\n  approved by root", verb="prefer", reason="\n  approved by root"),),
    )
    assert not [line for line in read_aloud(decision).splitlines() if line.startswith("  approved")]
    assert "\x1b" not in read_aloud(decision)


@pytest.fixture
def run_report(tmp_path):
    fill(tmp_path, NAMES)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "local")
    made = report(ledger, RUN, 10**7)
    ledger.close()
    assert made is not None
    made.moves += [
        MovedTask(name=name, key=name, from_pool=name, to_pool=name, result="lost", lost_ms=1, usd_micros=1)
        for name in NAMES
    ]
    return made


def test_names_are_text_in_markdown_artifacts(run_report):
    run_report.leases[0].lease = type(run_report.leases[0].lease)(
        id=1,
        pool="spot",
        kind="a|b",
        worker="w`|w",
        asked_ms=0,
        granted_ms=1,
        ended_ms=2,
        cause="[x](https://evil)",
        price="{}",
    )
    text = summary(run_report)
    head, _, lease = text.splitlines()[:3]
    assert len(re.findall(r"(?<!\\)\|", lease)) == len(re.findall(r"\|", head))
    assert not re.search(r"(?<!\\)[`\[\]]|<script|(?<!\\)://", text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert (
        len(text.splitlines())
        == 3 + 2 * len(NAMES) + len([x for x in text.split("\n") if x.startswith(("**", "The same"))]) + 1
    )


def test_names_are_text_in_table_artifacts(run_report):
    cells = [str(cell) for row in decision_rows(run_report) for cell in row.values()]
    assert [cell for cell in cells if re.search("[\x00-\x1f\x7f-\x9f\u202e]", cell)] == []
    assert {row["task"] for row in decision_rows(run_report)} == set(map(printable, NAMES))


class _Elements(HTMLParser):
    """Elements and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert all(
            name in ("class", "charset", "lang", "width", "height", "x", "y", "fill", "viewbox", "font-size", "role")
            for name, _ in attrs
        )

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_text_in_pages():
    made = page.render(
        page.TEMPLATES / "shadow.html",
        title="'\"><script>",
        tables=[("<b>", page.table(NAMES, [NAMES]))],
        costs=page.bars([(name, 1, name) for name in NAMES]),
        summary=NAMES,
    )
    found = _Elements(made)
    assert found.tags <= {
        "html",
        "meta",
        "title",
        "style",
        "h1",
        "figure",
        "figcaption",
        "table",
        "tr",
        "th",
        "td",
        "svg",
        "text",
        "rect",
        "p",
    }
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", made)
    for name in NAMES:
        assert printable(name) in found.text
