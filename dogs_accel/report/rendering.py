"""Templates of the report's pages: names from data are escaped, and what a page has is inside it."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dogs_accel.report import formats

_PACKAGES = ("dogs_accel.report",)
STYLES, SCRIPTS = ("report.css",), ("theme.js", "report.js")
"""What the pages of a report and of a sweep embed."""


def page_environment(*packages: str) -> Environment:
    """Give what the pages are made with: their templates, and the formats of numbers as filters.

    packages: others that have templates, which win over those of the report.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, *_PACKAGES)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= formats.FILTERS
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return environment


def assets(environment: Environment, *names: str) -> Markup:
    """Join styles, or scripts, of these packages, as a page embeds them."""
    assert environment.loader is not None
    return Markup("\n").join(Markup(environment.loader.get_source(environment, name)[0]) for name in names)
