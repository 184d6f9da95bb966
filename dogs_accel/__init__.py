"""An accelerated, honest comparison of image classifiers, and the input pipeline that makes it cheap.

Importing the package imports nothing heavy; import the module that you need.
"""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

try:
    __version__ = version("dogs-accel")
except PackageNotFoundError:  # a source tree that was built in place and not installed
    __version__ = "0+unknown"


def _check_pipelines() -> None:
    """Refuse a foreign package of that common name, which would fail later and in riddles."""
    spec = find_spec("pipelines")
    found = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or []), None)
    if found is None or not Path(found).with_name("recipe.py").is_file():
        raise ImportError(
            f"pipelines: found {found or 'nothing'}, expected the package of that name that comes with dogs_accel; "
            "another one hides it or it is not installed"
        )


_check_pipelines()
