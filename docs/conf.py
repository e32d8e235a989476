"""How the documentation is built: `make docs`. Nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import policyloop

project = "policyloop"
author = "policyloop"
copyright = author
release = policyloop.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["requirements.txt"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to folders of the repository; tests/docs checks every link
]

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_use_ivar = True

html_theme = "furo"
html_title = "policyloop"
html_copy_source = False
html_show_sphinx = False
