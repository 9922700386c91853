"""Addresses as people may see them."""

from __future__ import annotations

import re


def without_secrets(url: str) -> str:
    """A URL without what may be secret in it: the password, and everything after a question mark."""
    scheme, there, rest = url.partition("://")
    if not there:
        return url.partition("?")[0]
    # a password may hold any of these signs, unescaped; the user in front of it and the host behind it do not
    user, at, host = rest.rpartition("@")
    if at:
        name = re.match(r"[^:/?#]*", user)
        rest = f"{name.group() if name else ''}{'' if name and name.group() == user else ':***'}@{host}"
    return f"{scheme}://{rest.partition('?')[0]}{'?…' if '?' in rest else ''}"
