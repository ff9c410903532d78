"""One new process: import vecdb, open a file, answer one question. Prints what it took as JSON. Run by `bench start`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

HEAVY = ("torch", "numba", "pandas", "fastapi", "pyarrow", "onnxruntime")


def main() -> None:
    """Arguments: a JSON object with path, options of `Collection.search` and warm, or nothing: then only the import."""
    begun = time.perf_counter()
    import vecdb

    told: dict[str, Any] = {"import_ms": 1e3 * (time.perf_counter() - begun)}
    told["heavy"] = [name for name in HEAVY if name in sys.modules]
    if len(sys.argv) > 1:
        order = json.loads(sys.argv[1])
        begun = time.perf_counter()
        with vecdb.open(order["path"], create=False) as db:
            collection = db.collection("records", create=False)
            hits = collection.search(**order["search"])
            told["first_ms"] = 1e3 * (time.perf_counter() - begun)
            told["hits"] = len(hits)
            told["engine"] = [stage.detail.get("engine") for stage in hits.trace if stage.detail.get("engine")]
            if order.get("warm"):
                begun = time.perf_counter()
                collection.warm()
                told["warm_s"] = time.perf_counter() - begun
    print(json.dumps(told))


if __name__ == "__main__":
    main()
