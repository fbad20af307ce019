"""The Hub's pages: each is ours, and loads nothing of the stock style sheets and scripts."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from jupyterhub._data import DATA_FILES_PATH

from gpudev_hub.hub.picker import TEMPLATES

STOCK = Path(DATA_FILES_PATH) / "templates"
OURS = sorted(path.name for path in TEMPLATES.glob("*.html"))


def test_every_stock_page_has_one_of_ours() -> None:
    """A new version of JupyterHub may bring new ones."""
    assert {path.name for path in STOCK.glob("*.html")} <= set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_no_page_is_built_on_a_stock_one(name: str) -> None:
    text = (TEMPLATES / name).read_text()
    assert "templates/" not in text
    assert "static_url" not in text
    # The content security policy of the service's pages allows none, and these are to need none either.
    assert "<script>" not in text
    assert " style=" not in text


def test_a_stock_page_that_is_not_known_here_gets_our_head() -> None:
    """``page.html`` is what stock templates extend."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader([TEMPLATES, STOCK]), autoescape=True)
    page = environment.from_string('{% extends "page.html" %}{% block main %}new{% endblock %}')
    shown = page.render(prefix="/", base_url="/hub/", user=None)
    assert "gpudev.css" in shown
    assert "bootstrap" not in shown
    assert "new" in shown
