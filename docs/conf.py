"""Settings of the site: ``sphinx-build -W -j auto docs docs/_build/html`` makes it."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from nbclient import NotebookClient

DOCS = Path(__file__).parent
sys.path += [str(DOCS / "extensions")]

project = "thalnet-mtl"
author = "the thalnet-mtl authors"
copyright = "the thalnet-mtl authors, MIT license"
release = version = version_of("thalnet-mtl")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "plain_cells",
    "evidence",
    "reference",
]
exclude_patterns = ["_build", "README.md"]
suppress_warnings = ["myst.header"]  # pages of results begin with their own levels

# Every block of code runs when the site is made, in a folder of its own; an error ends the build.
os.environ |= {
    "BASH_ENV": str(DOCS / "extensions" / "strict.sh"),  # a shell block ends with its first error
    "COLUMNS": "80",
    "IPYTHONDIR": str(DOCS / "extensions" / "ipython"),
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",  # pages are made side by side
}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True
NotebookClient.coalesce_streams = True  # a shell block prints in pieces, also within a line
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Class attributes", "Attributes")]
python_use_unqualified_type_names = True
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "thalnet-mtl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}
