from __future__ import annotations

from typing import Any

import pytest

from vecdb.rerank.models.transformers_lm import TransformersModel


@pytest.fixture(scope="session")
def words() -> Any:
    """A tokenizer; like the models made with it, it needs the extra [rerank]."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import tiny_models

    return tiny_models.tokenizer()


@pytest.fixture(scope="session")
def causal(words: Any) -> TransformersModel:
    import tiny_models

    return TransformersModel(tiny_models.causal(words), words, batch=3)


@pytest.fixture(scope="session")
def seq2seq(words: Any) -> TransformersModel:
    import tiny_models

    return TransformersModel(tiny_models.seq2seq(words), words, batch=3)
