from __future__ import annotations

import importlib
import inspect

import vecdb


def test_every_public_name_is_there() -> None:
    for name in vecdb.__all__:
        assert getattr(vecdb, name) is not None
    assert sorted(vecdb.__all__) == list(vecdb.__all__)


def test_every_error_is_drawn_in_the_tree_and_public_ones_are_exported() -> None:
    errors = importlib.import_module("vecdb.errors")
    tree = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.VecdbError):
            assert name in tree
            assert name in vecdb.__all__
