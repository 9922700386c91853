"""Names that would do something to who reads them."""

from __future__ import annotations

import pytest

from agent.model.plain_text import markdown, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clean", "clean"),
        ("größe ✓ 日本 👩‍🔬", "größe ✓ 日本 👩‍🔬"),
        ("\x1b[2Kapproved", "\\x1b[2Kapproved"),
        ("\x9b2K", "\\x9b2K"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("txt\u202egnp", "txt\\u202egnp"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_moves_a_terminal_is_shown(name, shown):
    assert printable(name) == shown
    shown.encode()  # can be written


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("clean-2 of 3, v1.2", "clean-2 of 3, v1.2"),
        ("a`b", "a\\`b"),
        ("a|b", "a\\|b"),
        ("[here](https://evil)", "\\[here\\]\\(https\\://evil\\)"),
        ("![x](y)", "\\!\\[x\\]\\(y\\)"),
        ("www.evil.com", "www\\.evil.com"),
        ("<script>", "&lt;script&gt;"),
        ("&lt;", "&amp;lt;"),
        ("**bold** _it_", "\\*\\*bold\\*\\* \\_it\\_"),
        ("\\`", "\\\\\\`"),
        ("a\n# title", "a\\\\n\\# title"),
    ],
)
def test_markdown_reads_as_it_stands(name, made):
    assert markdown(name) == made
