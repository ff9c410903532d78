"""`python -m vecdb.server library.vecdb`: the service, with its settings from VECDB_… in the environment."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from vecdb.errors import VecdbError
from vecdb.server.run import serve


def main(arguments: list[str]) -> int:
    """0 after a clean stop, 1 for an error of ours, 2 for wrong usage."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(
            "usage: python -m vecdb.server FILE    (settings: VECDB_HOST, VECDB_PORT, VECDB_KEYS_FILE, …)",
            file=sys.stderr,
        )
        return 2
    try:
        serve(arguments[0])
    except VecdbError as error:
        print(f"vecdb: {error}", file=sys.stderr)
        return 1
    except ValidationError as error:
        for fault in error.errors():
            print(f"vecdb: VECDB_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
