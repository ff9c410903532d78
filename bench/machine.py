"""Where and with what a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import ROOT

_ARCHIVED = "$Format:%h$"  # `git archive` puts the commit here (see .gitattributes)

# What the usual libraries read to decide how many threads they start.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
    "LANCE_IO_THREADS",
)


def one_thread() -> dict[str, str]:
    """This process's environment, with every known pool limited to one thread."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}


def describe_run(command: str) -> dict[str, Any]:
    """What every line of results begins with."""
    return {
        "bench": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": _memory_gb(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        },
    }


@cache
def commit() -> str:
    """The short commit, "-dirty" behind it if tracked files differ; in an archive, what was packed; "unknown" elsewhere."""
    if not _ARCHIVED.startswith("$"):
        return _ARCHIVED
    try:
        short = _git("rev-parse", "--short", "HEAD")
        return short + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def version_of(package: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_memory_mb() -> float:
    """The largest resident set that this process ever had.

    Linux's ru_maxrss begins with what the parent had when it forked; VmHWM begins anew with the program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere


def results_folder(*, whole: bool) -> Path:
    """Where results go by default: a run over less than everything never takes the place of a whole one."""
    return ROOT / "bench" / ("results" if whole else "cache/partial")


def result_path(folder: Path, command: str) -> Path:
    """folder/COMMAND-DATE-COMMIT.jsonl; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{command}-{time.strftime('%Y-%m-%d', time.gmtime())}-{commit()}.jsonl"


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None
