"""The site made of these pages: `make docs`, in build/docs."""

from __future__ import annotations

project = "ORC"
author = "the ORC project"
copyright = ""
extensions = ["myst_parser"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = "ORC"
html_show_sphinx = False
html_show_copyright = False
# headings can be linked to, as on the pages of a code host
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
# the lexer of Cypher knows neither parameters nor division
suppress_warnings = ["misc.highlighting_failure"]
