"""Prints a pip constraint for every lower bound that pyproject.toml declares: `name==bound`.

    python .ci/lower_bounds.py EXTRA ... > constraints.txt

Without an extra, only those of the dependencies. Extras that name extras of this project are followed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lower_bounds(extras: list[str], pyproject: Path = PYPROJECT) -> dict[str, str]:
    """Collects the lower bounds of the dependencies and of some extras.

    Args:
        extras: Names of extras.
        pyproject: The file that declares them.

    Returns:
        The version of each package that has a bound, by the package's name.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    own_name = canonicalize_name(project["name"])
    bounds: dict[str, str] = {}
    queue, seen = list(project["dependencies"]), set()
    queue += [f"{own_name}[{extra}]" for extra in extras]
    while queue:
        requirement = Requirement(queue.pop())
        name = canonicalize_name(requirement.name)
        if name == own_name:
            for extra in requirement.extras - seen:
                seen.add(extra)
                queue += project["optional-dependencies"][extra]
        else:
            for bound in requirement.specifier:
                if bound.operator == ">=":
                    bounds[name] = bound.version
    return bounds


if __name__ == "__main__":
    for name, version in sorted(lower_bounds(sys.argv[1:]).items()):
        print(f"{name}=={version}")
