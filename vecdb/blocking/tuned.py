"""The offline encoder trained by the same loss as the hash, in PyTorch.

The layers of all-MiniLM-L6-v2 are trained, its embeddings of tokens are not: a few hundred pairs meet few tokens, and the others
would not follow. Records are cut at 64 tokens. A batch's matches are each other's others, beside the mined ones. 650 matches took
a quarter of a minute on an H200.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.blocking.codes import Codes
from vecdb.blocking.hashing import HashConfig
from vecdb.blocking.training import Matches, hard_others
from vecdb.embedding.base import Progress
from vecdb.errors import StorageError
from vecdb.index.sparse import Sparse

Matrix = NDArray[np.float32]
Layers = dict[str, NDArray[Any]]  # float16, by their names in the network

_BASE = "all-MiniLM-L6-v2"
_LAYERS = "encoder.layer."
_TOKENS = 64
_EPOCHS, _BATCH, _RATE, _WARM_UP = 8, 16, 1e-4, 0.1
_AT_ONCE = 32  # texts that are encoded together


class Tuned:
    """The encoder with trained layers. Raises MissingExtra without PyTorch, StorageError if layers do not fit."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        digest = hashlib.blake2b(digest_size=6)
        for name in sorted(layers):
            digest.update(name.encode() + np.ascontiguousarray(layers[name]).tobytes())
        self.name = f"{_BASE}+{digest.hexdigest()}"
        self._encoder = _loaded()
        torch = _torch()
        state = {name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in layers.items()}
        known = self._encoder.model.state_dict()
        if any(name not in known or known[name].shape != tensor.shape for name, tensor in state.items()):
            raise StorageError(
                "the trained layers of the encoder do not fit the offline encoder; train the blocker anew"
            )
        self._encoder.model.load_state_dict(state, strict=False)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Matrix:
        return _encoded(self._encoder, texts, progress)


def tune(
    texts: tuple[Sequence[str], Sequence[str]],
    matches: Matches,
    left_out: Matches,
    config: HashConfig,
    *,
    epochs: int = _EPOCHS,
    progress: Progress | None = None,
) -> Layers:
    """What the layers are after training on matches (places in the two lists of texts); records in left_out are not seen.

    The others of each match are mined before each epoch, as for the head. Reproducible from config.seed on one machine.
    """
    torch = _torch()
    encoder = _loaded()
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad_(_is_trained(name))
    parameters = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=0.01)
    seen = [np.setdiff1d(np.arange(len(own)), gone) for own, gone in zip(texts, (left_out.left, left_out.right))]
    steps = epochs * -(-len(matches) // _BATCH)
    pace = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share(step, steps))
    random = np.random.default_rng([config.seed, 13])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for epoch in range(epochs):
            others = _mined(encoder, texts, seen, matches)
            encoder.model.train()
            order = random.permutation(len(matches))
            for start in range(0, len(order), _BATCH):
                batch = order[start : start + _BATCH]
                loss = _loss(torch, encoder, texts, matches, others, batch, config)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                pace.step()
                if progress is not None:
                    progress(epoch * len(order) + start + len(batch), epochs * len(order))
            encoder.model.eval()
    return {
        name: tensor.detach().cpu().numpy().astype(np.float16)
        for name, tensor in encoder.model.state_dict().items()
        if _is_trained(name)
    }


def _loss(
    torch: Any,
    encoder: Any,
    texts: tuple[Sequence[str], Sequence[str]],
    matches: Matches,
    others: tuple[NDArray[np.int64], NDArray[np.int64]],
    batch: NDArray[np.int64],
    config: HashConfig,
) -> Any:
    """relu(d(p, q) - R), and relu(cR - d(p, r)) of the nearest r of the batch, from either side."""
    left, right = matches.left[batch], matches.right[batch]
    given = [
        *(texts[0][i] for i in left),
        *(texts[1][i] for i in right),
        *(texts[1][i] for i in others[0][batch]),
        *(texts[0][i] for i in others[1][batch]),
    ]
    p, q, of_p, of_q = encoder.forward([_ids(encoder, text) for text in given]).split(len(batch))
    near = _distances(torch, (p * q).sum(-1))
    loss = torch.relu(near - config.radius).mean()
    same = torch.from_numpy((left[:, None] == left) | (right[:, None] == right)).to(p.device)
    for own, opposite, mined in ((p, q, of_p), (q, p, of_q)):
        products = torch.cat([(own @ opposite.T).masked_fill(same, -1.0), (own * mined).sum(-1, keepdim=True)], dim=1)
        far = _distances(torch, products.topk(min(4, products.shape[1]), dim=1).values)
        loss = loss + torch.relu(config.gap * config.radius - far).mean() / 2
    return loss


def _mined(
    encoder: Any, texts: tuple[Sequence[str], Sequence[str]], seen: Sequence[NDArray[np.int64]], matches: Matches
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each match the nearest other of its left record, and of its right one: places in the lists of texts."""
    codes = []
    for own, places in zip(texts, seen):
        vectors = _encoded(encoder, [own[i] for i in places])
        codes.append(Codes(vectors, Sparse.empty(len(vectors))))
    renamed = Matches(np.searchsorted(seen[0], matches.left), np.searchsorted(seen[1], matches.right))
    of_left = hard_others(codes[0], codes[1], renamed, 1)[:, 0]
    of_right = hard_others(codes[1], codes[0], renamed.turned(), 1)[:, 0]
    return seen[1][of_left], seen[0][of_right]


def _encoded(encoder: Any, texts: Sequence[str], progress: Progress | None = None) -> Matrix:
    torch = _torch()
    ids = [_ids(encoder, text) for text in texts]
    found = np.empty((len(ids), encoder.model.config.hidden_size), np.float32)
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    encoder.model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            found[rows] = encoder.forward([ids[row] for row in rows]).float().cpu().numpy()
            if progress is not None:
                progress(start + len(rows), len(ids))
    return found


def _ids(encoder: Any, text: str) -> list[int]:
    return list(encoder.tokenizer(text, truncation=True, max_length=_TOKENS, verbose=False)["input_ids"])


def _is_trained(name: str) -> bool:
    return name.startswith(_LAYERS)


def _share(step: int, steps: int) -> float:
    """Of the rate: it rises first and falls linearly to 0 afterwards."""
    rising = max(1, int(_WARM_UP * steps))
    return (step + 1) / rising if step < rising else max(0.0, (steps - step) / max(1, steps - rising))


def _distances(torch: Any, products: Any) -> Any:
    return torch.sqrt((2 - 2 * products).clamp_min(1e-8))


def _loaded() -> Any:
    """A copy of the offline encoder of its own, for layers to be put in."""
    from vecdb.rerank.models.encoder import TextEncoder
    from vecdb.rerank.models.loading import best_device, load_encoder

    model, tokenizer = load_encoder()
    return TextEncoder(model.to(best_device()), tokenizer)


def _torch() -> Any:
    from vecdb.rerank.models.loading import needed

    return needed("torch", "an encoder that was trained")
