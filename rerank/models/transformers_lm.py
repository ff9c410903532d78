"""Causal and encoder-decoder models of the library transformers as a `ChatModel`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from inspect import signature
from typing import Any

from vecdb.errors import InvalidInput
from vecdb.language_model import Prompt
from vecdb.rerank.models.base import FirstToken, Reply, Stop


class TransformersModel:
    """A model and its tokenizer, as transformers loads them (`loading.load_chat` does, by name).

    Works with any causal or encoder-decoder model. A chat template is used where the tokenizer has one; otherwise the prompt
    is plain text. batch: how many prompts are read at once; prompts of like length go together.
    """

    def __init__(self, model: Any, tokenizer: Any, *, context: int | None = None, batch: int = 4) -> None:
        if batch < 1:
            raise InvalidInput(f"batch is {batch}; it must be at least 1")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._encodes = bool(model.config.is_encoder_decoder)
        self._keeps_last = "logits_to_keep" in signature(model.forward).parameters
        self._pad = next(t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if t is not None)
        self._batch = batch
        config = model.config.get_text_config()
        known = context or getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        self.context = int(known or 2048)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    def cut(self, text: str, tokens: int) -> str:
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:tokens]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def first_token(self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], opening: str) -> list[FirstToken]:
        """Raises InvalidInput if a label is no single token of this tokenizer after the opening."""
        import torch

        told: list[Any] = [None] * len(prompts)
        marks = [self.label_ids(opening, own) for own in labels]
        ids = [self.prompt_ids(prompt, begun) for prompt, (begun, _) in zip(prompts, marks)]
        for rows in self._batches(ids):
            with torch.inference_mode():
                logits = self._next_logits([ids[row] for row in rows], [marks[row][0] for row in rows])
                chances = logits.float().log_softmax(dim=-1)
            for row, own in zip(rows, chances):
                scores = own[marks[row][1]].double().cpu().numpy()
                told[row] = FirstToken(scores, len(ids[row]) + (len(marks[row][0]) if self._encodes else 0))
        return told

    def generate(
        self, prompts: Sequence[Prompt], *, opening: str = "", limit: int, stop: Stop | None = None
    ) -> list[Reply]:
        replies: list[Any] = [None] * len(prompts)
        begun = self.tokenizer(opening, add_special_tokens=False)["input_ids"] if opening else []
        ids = [self.prompt_ids(prompt, begun) for prompt in prompts]
        for rows in self._batches(ids):
            own = [ids[row] for row in rows]
            for row, written in zip(rows, self._write(own, begun, opening, limit, stop)):
                text = str(self.tokenizer.decode(written, skip_special_tokens=True))
                read = len(ids[row]) + (len(begun) if self._encodes else 0)
                replies[row] = Reply(text, read, len(written))
        return replies

    def prompt_ids(self, prompt: Prompt, begun: Sequence[int]) -> list[int]:
        """The prompt's tokens; a causal model's end with the reply's opening, an encoder-decoder's decoder gets that."""
        text = self._chat(prompt)
        if text is not None:
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        else:
            ids = self.tokenizer(f"{prompt}\n", verbose=False)["input_ids"]
        return list(ids) if self._encodes else [*ids, *begun]

    def _chat(self, prompt: Prompt) -> str | None:
        """The prompt by the tokenizer's chat template; None if it has none, or none that takes a lone user turn."""
        if not getattr(self.tokenizer, "chat_template", None):
            return None
        rules_apart = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        for turns in (rules_apart, [{"role": "user", "content": str(prompt)}]):
            # Templates raise what they like; some know no system role.
            with suppress(Exception):
                made = self.tokenizer.apply_chat_template(
                    turns, add_generation_prompt=True, tokenize=False, enable_thinking=False
                )
                return str(made)
        return None

    def label_ids(self, opening: str, labels: Sequence[str]) -> tuple[list[int], list[int]]:
        """What the opening and the labels are in this tokenizer: the tokens that all share, and the one that tells each.

        A bracket may merge with the letter after it; then nothing is shared, and the merged tokens tell the labels apart.
        """
        # One label alone shows no shared tokens; beside others of its kind it does.
        compared = list(dict.fromkeys([*labels, "A", "B"])) if len(labels) == 1 else labels
        written = [self.tokenizer(opening + label, add_special_tokens=False)["input_ids"] for label in compared]
        shared = 0
        while all(len(ids) > shared + 1 for ids in written) and len({ids[shared] for ids in written}) == 1:
            shared += 1
        tells = [ids[shared] for ids in written]
        if len(set(tells)) < len(tells) or any(len(ids) > shared + 1 for ids in written):
            raise InvalidInput(
                f"the model's tokenizer does not write each of {opening + labels[0]!r} … {opening + labels[-1]!r} with one "
                "token of its own; rerank by a written order instead (rerank='sliding')"
            )
        return list(written[0][:shared]), tells[: len(labels)]

    def _batches(self, ids: Sequence[Sequence[int]]) -> list[list[int]]:
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        return [order[start : start + self._batch] for start in range(0, len(order), self._batch)]

    def _padded(self, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
        """input_ids and attention_mask, (B, longest), padded on the left so that all end together."""
        import torch

        width = max(map(len, ids))
        tokens = torch.full((len(ids), width), self._pad, dtype=torch.long)
        mask = torch.zeros((len(ids), width), dtype=torch.long)
        for row, own in enumerate(ids):
            tokens[row, width - len(own) :] = torch.tensor(own, dtype=torch.long)
            mask[row, width - len(own) :] = 1
        return {"input_ids": tokens.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def _next_logits(self, ids: Sequence[Sequence[int]], begun: Sequence[Sequence[int]]) -> Any:
        """(B, vocabulary) logits of the token after each prompt."""
        inputs = self._padded(ids)
        if self._encodes:
            inputs["decoder_input_ids"] = self._decoder_start(len(ids), begun[0])
            return self.model(**inputs).logits[:, -1]
        # Left padding moves the tokens; models that do not work positions out from the mask are told them.
        if "position_ids" in signature(self.model.forward).parameters:
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        keep = {"logits_to_keep": 1} if self._keeps_last else {}
        return self.model(**inputs, use_cache=False, **keep).logits[:, -1]

    def _decoder_start(self, rows: int, begun: Sequence[int]) -> Any:
        import torch

        start = [self.model.config.decoder_start_token_id, *begun]
        return torch.tensor([start] * rows, device=self.model.device)

    def _write(
        self, ids: Sequence[Sequence[int]], begun: Sequence[int], opening: str, limit: int, stop: Stop | None
    ) -> list[list[int]]:
        """The tokens that the model writes after each prompt, up to its end of text."""
        import torch
        from transformers import GenerationConfig, StoppingCriteriaList

        inputs = self._padded(ids)
        if self._encodes:
            inputs["decoder_input_ids"] = self._decoder_start(len(ids), begun)
        start = inputs["decoder_input_ids" if self._encodes else "input_ids"].shape[1]
        ends = self._ends()
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=self._pad,
            eos_token_id=ends or None,
            decoder_start_token_id=self.model.config.decoder_start_token_id if self._encodes else None,
        )
        lengths: dict[int, int] = {}  # of the rows that stop ended: generate() pads them

        def stopped(tokens: Any, scores: Any, **_: Any) -> Any:
            for row in range(len(tokens)):
                if (
                    stop is not None
                    and row not in lengths
                    and stop(opening + self.tokenizer.decode(tokens[row, start:]))
                ):
                    lengths[row] = tokens.shape[1] - start
            return torch.tensor([row in lengths for row in range(len(tokens))], device=tokens.device)

        with torch.inference_mode():
            out = self.model.generate(
                **inputs, generation_config=settings, stopping_criteria=StoppingCriteriaList([stopped])
            )
        written = []
        for row, tokens in enumerate(out[:, start:].tolist()):
            kept = tokens[: lengths.get(row, len(tokens))]
            end = next((place for place, token in enumerate(kept) if token in ends), None)
            written.append(kept if end is None else kept[: end + 1])
        return written

    def _ends(self) -> list[int]:
        own = getattr(self.model.generation_config, "eos_token_id", None)
        found = [*(own if isinstance(own, list) else [own]), self.tokenizer.eos_token_id]
        return list(dict.fromkeys(token for token in found if token is not None))
