"""The site of these pages: `make docs`. Sphinx reads Markdown through MyST; `-W` makes each warning an error.

Nothing is fetched when it is built or read: the theme has no fonts, scripts or analytics of other hosts.
"""

project = "vl3syn"
author = "the vl3syn authors"
copyright = "the vl3syn authors, Apache-2.0"
extensions = ["myst_parser"]
exclude_patterns: list[str] = []

myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "vl3syn"
html_show_sphinx = False
html_copy_source = False
smartquotes = False
highlight_language = "text"
pygments_style = "friendly"
