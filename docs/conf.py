"""The documentation site, made by `make docs` from the pages that GitHub shows.

The source folder is the whole repository, so that relative links mean the same on GitHub and on the site.
A link to a file that is not a page becomes a download.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

project = "gpudev"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "infra/aws/README.md"]
exclude_patterns = [".*", "dist", "node_modules", "spawner", "tests"]
nitpicky = True

# Links to headings are checked like links to pages, with the anchors that GitHub makes.
myst_heading_anchors = 6

html_theme = "pydata_sphinx_theme"
html_title = "gpudev"
html_show_sourcelink = False
html_theme_options = {"navbar_center": [], "show_prev_next": False}
html_sidebars = {"**": ["globaltoc"]}

NAVIGATION = {
    "For users": [
        "quick-start",
        "how-the-queue-works",
        "login",
        "limits",
        "ssh",
        "sharing",
        "access",
        "usage",
        "your-files",
        "reference-cli",
        "reference-library",
        "reference-api",
    ],
    "For operators": [
        "operating",
        "github-app",
        "bastion",
        "threat-model",
        "install-aws",
        "operating-aws",
        "scale",
        "kubernetes",
        "images",
        "dynamodb",
    ],
    "Day two on AWS": ["aws/*", "../infra/aws/README"],
    "For developers": ["../CONTRIBUTING", "architecture", "benchmarks", "../SECURITY", "../CHANGELOG"],
    "Decisions": ["decisions/README", "decisions/0*"],
}
"""Pages by heading. Sphinx warns of a page that is in none of the lists."""


def add_navigation(_: Sphinx, page: str, source: list[str]) -> None:
    """Append the navigation to the first page, where GitHub does not show it."""
    if page == root_doc:
        for heading, names in NAVIGATION.items():
            entries = "\n".join(f"/docs/{name}".replace("/docs/../", "/") for name in names)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {heading}\n\n{entries}\n```\n"


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Make the address of the folder show the first page."""
    if error is None:
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        (Path(app.outdir) / "index.html").write_text(page)


def setup(app: Sphinx) -> None:
    """Connect the two functions above; Sphinx calls this."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_index)
