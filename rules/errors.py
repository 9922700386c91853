"""What is wrong with rules."""

from __future__ import annotations


class RuleError(ValueError):
    """A rule file is wrong; the rules in force stay as they were."""
