"""The network of MVP (multi-view passage reranking): views of each passage, an anchor for each view, dot products.

Every passage is read alone with the query, behind m view tokens; the encoder's states there are its m relevance vectors. One
decoder step for each view looks at that view's vectors of all passages, as a set, and gives an anchor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_SETTINGS, _WEIGHTS = "multiview.json", "multiview.safetensors"


class SetDecoder(nn.Module):
    """One layer of cross-attention from a learnt start to the passages, without positions, then a feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, views: Tensor) -> Tensor:
        """(m, n, d) -> (m, d)"""
        start = self.start.expand(len(views), 1, -1)
        seen, _ = self.attention(start, views, views, need_weights=False)
        state = self.norm(start + seen)
        anchors: Tensor = state + self.feed(state)
        return anchors[:, 0]


class T5Decoder(nn.Module):
    """One step of a T5 decoder from its start token; its cross-attention has no positions, so passages are a set to it."""

    def __init__(self, decoder: nn.Module, start: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.start = start

    def forward(self, views: Tensor) -> Tensor:
        """(m, n, d) -> (m, d)"""
        ids = torch.full((len(views), 1), self.start, dtype=torch.long, device=views.device)
        states: Tensor = self.decoder(input_ids=ids, encoder_hidden_states=views, use_cache=False).last_hidden_state
        return states[:, 0]


class MultiView(nn.Module):
    """encoder: of transformers, with `inputs_embeds`. An encoder-decoder of the T5 family brings its own decoder along."""

    def __init__(self, model: Any, tokenizer: Any, *, views: int = 4) -> None:
        super().__init__()
        config = model.config
        self.model, self.tokenizer, self.views = model, tokenizer, views
        width = config.hidden_size
        self.view_tokens = nn.Parameter(torch.randn(views, width) * 0.02)
        if config.is_encoder_decoder:
            self.encoder = model.get_encoder()
            self.decoder: nn.Module = T5Decoder(model.get_decoder(), config.decoder_start_token_id)
        else:
            self.encoder = model
            self.decoder = SetDecoder(width, config.num_attention_heads)

    @property
    def device(self) -> torch.device:
        return self.view_tokens.device

    def ids(self, query: str, passages: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Tokens of the query and each passage, leaving room for the view tokens."""
        return self.pair_ids([query] * len(passages), passages, max_tokens)

    def pair_ids(self, queries: Sequence[str], passages: Sequence[str], max_tokens: int) -> list[list[int]]:
        """The same of pairs."""
        known = getattr(self.model.config, "max_position_embeddings", None) or max_tokens
        limit = min(max_tokens, known) - self.views
        pairs: list[list[int]] = self.tokenizer(
            list(queries), list(passages), truncation="longest_first", max_length=limit
        )["input_ids"]
        return pairs

    def relevance(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """(n, m, d): the view vectors of each passage. Each is read alone: padding is masked, and stands at the end."""
        width = max(map(len, ids))
        pad = self.tokenizer.pad_token_id or 0
        tokens = torch.tensor([[*own, *[pad] * (width - len(own))] for own in ids], device=self.device)
        mask = torch.tensor(
            [[1] * (self.views + len(own)) + [0] * (width - len(own)) for own in ids], device=self.device
        )
        embedded = self.model.get_input_embeddings()(tokens)
        inputs = torch.cat([self.view_tokens.expand(len(ids), -1, -1), embedded], dim=1)
        states: Tensor = self.encoder(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        return states[:, : self.views]

    def anchors(self, relevance: Tensor) -> Tensor:
        """(…, n, m, d) -> (…, m, d): of one set of passages, or of several sets of as many passages."""
        views = relevance.transpose(-3, -2)
        anchors: Tensor = self.decoder(views.flatten(end_dim=-3))
        return anchors.view(*views.shape[:-2], -1)

    def view_scores(self, relevance: Tensor) -> Tensor:
        """(n, m, d) -> (n, m): each passage by each view; its score is the mean."""
        return torch.einsum("nmd,md->nm", relevance, self.anchors(relevance))

    def save(self, folder: str | Path) -> None:
        """Encoder and tokenizer as transformers saves them, and beside them what is ours, with the number of views."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file(self._own(), folder / _WEIGHTS)
        (folder / _SETTINGS).write_text(json.dumps({"views": self.views}), encoding="utf-8")

    def _own(self) -> dict[str, Tensor]:
        shared = {id(parameter) for parameter in self.model.parameters()}
        return {name: p.detach().contiguous() for name, p in self.named_parameters() if id(p) not in shared}

    @classmethod
    def load(cls, folder: str | Path) -> MultiView:
        """What `save` wrote. Raises OSError, ValueError or RuntimeError for anything else."""
        from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

        folder = Path(folder)
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(folder).is_encoder_decoder else AutoModel
        model = kind.from_pretrained(folder, use_safetensors=True)
        made = cls(model, AutoTokenizer.from_pretrained(folder), views=int(settings["views"]))
        own = load_file(folder / _WEIGHTS)
        if set(own) != set(made._own()):
            raise ValueError(f"{folder / _WEIGHTS} holds other parameters than a model of {made.views} views has")
        made.load_state_dict(own, strict=False)
        return made.eval()
