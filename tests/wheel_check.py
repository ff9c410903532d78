"""Whether a wheel holds all that the tree does, and works with nothing but what it depends on.

    python tests/wheel_check.py WHEEL        in an environment where the wheel was installed without extras, outside the tree

Every module must import or ask for a package of an extra; a small collection must answer.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def missing_files(wheel: Path) -> list[str]:
    """Files of the packages' folders that the wheel lacks."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = settings["tool"]["setuptools"]["package-dir"]
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = []
    for package, folder in folders.items():
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT / folder).as_posix()
            name = f"{package.replace('.', '/')}/{inside}"
            if path.is_file() and "__pycache__" not in inside and name not in names:
                missing.append(name)
    return missing


def broken_modules() -> list[str]:
    """Modules that do not import, for another reason than that a package of an extra is not there."""
    import vecdb
    from vecdb.errors import MissingExtra

    broken = []
    for found in pkgutil.walk_packages(vecdb.__path__, "vecdb.", onerror=lambda name: None):
        if found.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(found.name)
        except MissingExtra:
            continue
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("vecdb"):
                broken.append(f"{found.name}: {error}")
    return broken


def answers() -> list[str]:
    """The ids that a hybrid search in a small collection finds."""
    import vecdb

    with vecdb.open(":memory:") as db:
        notes = db.collection("notes")
        notes.add(ids=["a", "b"], texts=["bees dance", "whales sing"], vectors=[[1.0, 0.0], [0.0, 1.0]])
        return [hit.id for hit in notes.search("bees", vector=[1.0, 0.1], k=2, mode="hybrid")]


def main() -> None:
    import vecdb

    if ROOT in Path(vecdb.__file__).resolve().parents and "site-packages" not in vecdb.__file__:
        sys.exit(f"vecdb is imported from the tree ({vecdb.__file__}), not from the wheel")
    problems = [f"not in the wheel: {name}" for name in missing_files(Path(sys.argv[1]))] + broken_modules()
    if (found := answers()) != ["a", "b"]:
        problems.append(f"a search found {found}, not a and b")
    if problems:
        sys.exit("\n".join(problems))
    print("the wheel is whole")


if __name__ == "__main__":
    main()
