"""From the paths that a user names to the files that are read: sorted, each once, without the junk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from vecdb.errors import InvalidInput
from vecdb.ingest.kinds import kind_of

# Folders of copies and caches. Short: leaving a folder out silently is worse than reading too much, and `exclude` is
# there.
JUNK_FOLDERS = frozenset(["node_modules", "bower_components", "__pycache__", "venv", "site-packages"])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files below a folder are taken.

    include, exclude: shell patterns, held against the file's name and against its path below the folder ("*.md",
    "drafts/*"). An excluded folder is not entered. Hidden files and JUNK_FOLDERS are left out below a folder, but a
    file or a folder that the user names is always taken.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes_folder(self, name: str, below: str) -> bool:
        if name.startswith(".") or name in JUNK_FOLDERS or name.endswith(".vecdb-index"):
            return False
        return not _matches(name, below, self.exclude)

    def takes_file(self, name: str, below: str) -> bool:
        if name.startswith(".") or _matches(name, below, self.exclude):
            return False
        return _matches(name, below, self.include) if self.include else kind_of(Path(name)) is not None

    def takes(self, path: Path, root: Path) -> bool:
        """True if a walk of root would come upon this path: the rule for a single change that a watcher reports."""
        if path == root:
            return True
        *folders, name = path.relative_to(root).parts
        for depth, folder in enumerate(folders):
            if not self.takes_folder(folder, "/".join(folders[: depth + 1])):
                return False
        below = "/".join((*folders, name))
        return self.takes_folder(name, below) if path.is_dir() else self.takes_file(name, below)


@dataclass(slots=True)
class Found:
    """files: absolute, sorted, each once. unreadable: folders that could not be entered, with the reason."""

    files: list[Path] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)


def _matches(name: str, below: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(below, pattern) for pattern in patterns)


def resolve(paths: Sequence[str | Path]) -> list[Path]:
    """Absolute paths without links and dots. Raises InvalidInput if one does not exist, so that a typing error (or a
    disk that is not mounted) is never taken for an empty folder.
    """
    resolved = []
    for path in paths:
        absolute = Path(path).expanduser().resolve()
        if not absolute.exists():
            raise InvalidInput(f"{path} does not exist; name files or folders to read")
        resolved.append(absolute)
    return resolved


def find_files(roots: Sequence[Path], selection: Selection) -> Found:
    """The files at and below roots (as `resolve` gives them). Links to folders are not followed: they may lead in
    circles.
    """
    found = Found()
    seen: set[Path] = set()
    for root in roots:
        for path in _below(root, selection, lambda path, reason: found.unreadable.update({path: reason})):
            itself = path.resolve()  # a link to a file is read under its own name, but not beside that file
            if itself not in seen:
                seen.add(itself)
                found.files.append(path)
    return found


def _below(root: Path, selection: Selection, report: Callable[[Path, str], None]) -> Iterator[Path]:
    if not root.is_dir():
        if not _matches(root.name, root.name, selection.exclude):
            yield root
        return

    def refused(error: OSError) -> None:
        report(Path(error.filename), error.strerror or "cannot be read")

    for folder, names, files in os.walk(root, onerror=refused):
        here = Path(folder).relative_to(root).as_posix()
        prefix = "" if here == "." else f"{here}/"
        names[:] = sorted(name for name in names if selection.takes_folder(name, prefix + name))
        for name in sorted(files):
            path = Path(folder, name)
            if selection.takes_file(name, prefix + name) and path.is_file():
                yield path
