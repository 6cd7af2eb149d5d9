"""How the site is built: `sphinx-build -W -b html docs docs/_build/html`, without a network."""

import os
import sys
from pathlib import Path

import jdeconv

sys.path.insert(0, str(Path(__file__).parent))
# The kernels of the tutorials import docs.pictures and the benchmarks from the source tree.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])

project = "jdeconv"
author = "The jdeconv developers"
project_copyright = "The jdeconv developers"
version = release = jdeconv.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.katex",
    "extensions.complete",
    "extensions.docstrings",
    "extensions.names",
    "extensions.pages",
]
exclude_patterns = ["_build", "examples"]
default_role = "code"  # single backticks, as docstrings have them
# Flax and Equinox both have a Conv, which the type of an argument may mean.
suppress_warnings = ["myst.strikethrough", "ref.python"]

# Tutorials are run at every build, each in a kernel of its own, and an error ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # XLA complains there when the machine that builds is busy
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {
    name: name for name in ("ArrayLike", "DTypeLike", "Ints", "Padding", "PrecisionLike")
}
python_maximum_signature_line_length = 60  # one argument a line
napoleon_use_param = False  # so that one line can describe several arguments
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes"]

copybutton_prompt_text = ">>> |\\.\\.\\. |\\$ "
copybutton_prompt_is_regexp = True
katex_css_path = "katex/katex.min.css"  # of the version whose script the extension ships
katex_options = "macros: {}"

html_theme = "pydata_sphinx_theme"
html_title = "jdeconv"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_sidebars = {  # where there is no section to navigate
    page: []
    for page in (
        "start",
        "figure",
        "the-form",
        "glossary",
        "trust",
        "limits",
        "contributing",
        "changelog",
    )
}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "jdeconv"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    # These pages have wide tables and pictures, so they have no list of contents beside them.
    "secondary_sidebar_items": {"**": ["page-toc"], "glossary": [], "index": [], "figure": []},
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
