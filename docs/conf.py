"""Settings of Sphinx for these pages; `make docs` builds them in docs/_build/html."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.append(str(DOCS / "_extensions"))

import postprior  # noqa: E402

project = "postprior"
author = "The postprior developers"
project_copyright = author
version = release = postprior.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "generated", "overview"]
exclude_patterns = ["_build"]
default_role = "code"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_cache_path = str(DOCS / "_build/notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"postprior {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
