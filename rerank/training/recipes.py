"""How each reranker is trained on slates: one loss a step, one loop for all, reproducible from a seed.

    python -m vecdb.rerank.training first --slates slates.jsonl --model NAME --out FOLDER

The defaults are the papers' where they fit a small model; what they trained on is theirs (see each page in the issue).
"""

from __future__ import annotations

import copy
import json
import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vecdb.errors import InvalidInput
from vecdb.language_model import Prompt
from vecdb.rerank.listwise import prompts
from vecdb.rerank.models.encoder import TextEncoder
from vecdb.rerank.models.multiview import MultiView
from vecdb.rerank.models.transformers_lm import TransformersModel
from vecdb.rerank.training import losses, rewards
from vecdb.rerank.training.slates import Slate


class Recipe(ABC):
    """A method's loss on a batch of slates.

    prepare: what needs no network, tokenising above all; other threads do it, some batches ahead. loss: of what that gave.
    """

    network: Any  # an nn.Module: that of transformers, or ours
    weight_decay: ClassVar[float] = 0.01
    # Passages come in new order each time, so that a model which orders what it reads does not learn to repeat the first stage.
    shuffles: ClassVar[bool] = True

    def prepare(self, slates: Sequence[Slate]) -> Any:
        return slates

    @abstractmethod
    def loss(self, prepared: Any) -> Tensor: ...

    @abstractmethod
    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """steps: of the optimiser. warm_up: their share in which the rate rises; it falls linearly to 0 afterwards.

    seconds: training is over after so long, however many steps that were, and the rate has fallen to 0 by then; a run that it
    ended can be repeated with the steps that it made only up to where the rate began to fall faster. frozen: parameters whose
    names have this in them stay as they are. half: matrix products in bfloat16, on a GPU.
    """

    steps: int = 700
    batch: int = 8
    rate: float = 5e-6
    warm_up: float = 0.03
    clip: float = 1.0
    seed: int = 0
    seconds: float | None = None
    frozen: str | None = None
    half: bool = False

    def share(self, step: int, elapsed: float = 0.0) -> float:
        """Of the rate, at this step and so many seconds after the first."""
        rising = max(1, int(self.warm_up * self.steps))
        if step < rising:
            return (step + 1) / rising
        gone = step if self.seconds is None else max(step, self.steps * elapsed / self.seconds)
        return max(0.0, (self.steps - gone) / max(1, self.steps - rising))


def train(
    recipe: Recipe, slates: Sequence[Slate], schedule: Schedule, *, told: Callable[[int, float], None] | None = None
) -> list[float]:
    """The loss of each step. The same slates, schedule and start give the same network on one machine, unless time ends it."""
    if not slates:
        raise InvalidInput("there are no slates to train on")
    seeded(schedule.seed)
    network = recipe.network.train()
    for name, parameter in network.named_parameters():
        if schedule.frozen is not None and schedule.frozen in name:
            parameter.requires_grad_(False)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=recipe.weight_decay)
    halved = torch.autocast(parameters[0].device.type, torch.bfloat16, enabled=schedule.half)
    course: list[float] = []
    since = time.monotonic()
    batches = _batches(slates, schedule, shuffles=recipe.shuffles)
    for step, prepared in zip(range(schedule.steps), _ahead(recipe.prepare, batches)):
        elapsed = time.monotonic() - since
        if schedule.seconds is not None and elapsed >= schedule.seconds:
            break
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * schedule.share(step, elapsed)
        with halved:
            loss = recipe.loss(prepared)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimiser.step()
        course.append(float(loss.detach()))
        if told is not None:
            told(step, course[-1])
    network.eval()
    return course


def _ahead(prepare: Callable[[list[Slate]], Any], batches: Iterator[list[Slate]], most: int = 4) -> Iterator[Any]:
    """What prepare gives for each batch, in order."""
    with ThreadPoolExecutor(2, "vecdb-prepare") as pool:
        waiting = deque(pool.submit(prepare, next(batches)) for _ in range(most))
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(pool.submit(prepare, next(batches)))
        finally:
            for future in waiting:
                future.cancel()


def seeded(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _batches(slates: Sequence[Slate], schedule: Schedule, *, shuffles: bool) -> Iterator[list[Slate]]:
    """Endless batches; slates in new order in each round, and their passages too if shuffles."""
    chance = np.random.default_rng(schedule.seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < schedule.batch:
            waiting += chance.permutation(len(slates)).tolist()
        drawn = [slates[i] for i in waiting[: schedule.batch]]
        yield [slate.shuffled(chance) for slate in drawn] if shuffles else drawn
        waiting = waiting[schedule.batch :]


def _ranks(slates: Sequence[Slate], device: Any) -> Tensor:
    """(B, most) with 0 for padding."""
    most = max(len(slate.ranks) for slate in slates)
    return torch.tensor([[*slate.ranks, *[0] * (most - len(slate.ranks))] for slate in slates], device=device)


class WrittenOrder(Recipe):
    """A causal model that writes orders: FIRST's loss with letters (rank > 0), or full ranking's with importance (weighted).

    FIRST: L = L_LM + rank x RankNet, weighted, of the first identifier's logits (section 3.2; rank = 10). Full ranking: numbers,
    tokens weighed by their list position. noise: NEFTune's alpha, on the embeddings.
    """

    def __init__(
        self,
        chat: TransformersModel,
        *,
        letters: bool,
        rank: float = 0.0,
        weighted: bool = False,
        passage_tokens: int = 100,
        noise: float = 5.0,
    ) -> None:
        self.chat, self.network = chat, chat.model
        self.letters, self.rank, self.weighted = letters, rank, weighted
        self.passage_tokens = passage_tokens
        embeddings = chat.model.get_input_embeddings()
        if noise:
            embeddings.register_forward_hook(partial(_noisy, noise))

    def loss(self, prepared: Any) -> Tensor:
        slates: Sequence[Slate] = prepared
        total = torch.zeros((), device=self.network.device)
        for slate in slates:  # one at a time: prompts are long and of all lengths
            total = total + self._of(slate)
        return total / len(slates)

    def _of(self, slate: Slate) -> Tensor:
        count = len(slate.passages)
        labels = prompts.letters(count) if self.letters else prompts.numbers(count)
        frame = partial(prompts.permutation, slate.query, labels)
        target = " > ".join(f"[{labels[i]}]" for i in slate.order)
        written = self.chat.tokenizer(target, add_special_tokens=False)["input_ids"]
        fitted = prompts.fit(self.chat, slate.passages, frame, reply=len(written) + 2, most=self.passage_tokens)
        read = self.chat.prompt_ids(frame(fitted.passages), [])
        ids = torch.tensor([[*read, *written]], device=self.network.device)
        logits = self.network(input_ids=ids).logits[:, len(read) - 1 : -1]
        marks = [self.chat.tokenizer.decode([token]) for token in written]
        weights = losses.position_weights(marks) if self.weighted else [1.0] * len(written)
        loss = losses.weighted_nll(
            logits.float(), ids[:, len(read) :], torch.tensor([weights], device=self.network.device)
        )
        if self.rank:
            begun, tells = self.chat.label_ids(prompts.OPENING, labels)
            first = logits[:, len(begun), tells].float()
            loss = loss + self.rank * losses.ranknet(first, _ranks([slate], first.device), weighted=True)
        return loss

    def save(self, folder: Path) -> None:
        self.chat.model.save_pretrained(folder)
        self.chat.tokenizer.save_pretrained(folder)


def _noisy(alpha: float, module: nn.Module, _: Any, output: Tensor) -> Tensor:
    """NEFTune: uniform noise of size alpha / sqrt(length x width), while training."""
    if not module.training:
        return output
    size = alpha / (output.shape[-2] * output.shape[-1]) ** 0.5
    return output + torch.empty_like(output).uniform_(-size, size)


class Listwise(Recipe):
    """E2Rank on an encoder: InfoNCE of the plain query and RankNet of the listwise query, documents encoded once.

    feedback: so many of a slate's documents stand in its listwise query, the first stage's best as when it is asked later.
    document_tokens: where documents are cut.
    """

    shuffles = False  # documents are scored by their own vectors: there is no order to repeat

    def __init__(self, encoder: TextEncoder, *, feedback: int = 20, document_tokens: int = 256) -> None:
        self.encoder, self.network = encoder, encoder.model
        self.feedback, self.document_tokens = feedback, min(document_tokens, encoder.max_tokens)

    def prepare(self, slates: Sequence[Slate]) -> Any:
        encoder = self.encoder
        flat = encoder.batch_ids([text for slate in slates for text in slate.passages], self.document_tokens)
        plain = encoder.batch_ids([slate.query for slate in slates])
        shown = [slate.passages[: self.feedback] for slate in slates]
        listwise = [encoder.listwise_ids(slate.query, own) for slate, own in zip(slates, shown)]
        return slates, flat, plain, listwise

    def loss(self, prepared: Any) -> Tensor:
        slates, flat, plain, listwise = prepared
        most = max(len(slate.passages) for slate in slates)
        encoded = iter(torch.split(self._encoded(flat), [len(slate.passages) for slate in slates]))
        documents = torch.stack(
            [nn.functional.pad(own, (0, 0, 0, most - len(own))) for own in (next(encoded) for _ in slates)]
        )
        queries, shown = self._encoded(plain), self._encoded(listwise)
        with torch.autocast(documents.device.type, enabled=False):  # a temperature of 0.03 needs every digit
            return losses.e2rank(queries, shown, documents, _ranks(slates, documents.device))

    def _encoded(self, ids: Sequence[Sequence[int]]) -> Tensor:
        vectors: Tensor = self.encoder.forward(ids).float()
        return vectors

    def save(self, folder: Path) -> None:
        self.encoder.told()
        self.encoder.model.save_pretrained(folder)
        self.encoder.tokenizer.save_pretrained(folder)


class Views(Recipe):
    """MVP: ListNet on the mean score of the views, and views kept apart."""

    def __init__(self, network: MultiView, *, apart: float = 1.0, max_tokens: int = 256) -> None:
        self.network = network
        self.apart, self.max_tokens = apart, max_tokens

    def prepare(self, slates: Sequence[Slate]) -> Any:
        queries = [slate.query for slate in slates for _ in slate.passages]
        passages = [text for slate in slates for text in slate.passages]
        return slates, self.network.pair_ids(queries, passages, self.max_tokens)

    def loss(self, prepared: Any) -> Tensor:
        slates, ids = prepared
        counts = [len(slate.passages) for slate in slates]
        read = torch.split(self.network.relevance(ids).float(), counts)
        total = torch.zeros((), device=self.network.device)
        for count in sorted(set(counts)):  # sets of one size go through the decoder together
            places = [place for place, own in enumerate(counts) if own == count]
            sets = torch.stack([read[place] for place in places])
            anchors = self.network.anchors(sets).float()
            with torch.autocast(sets.device.type, enabled=False):
                scores = torch.einsum("bnmd,bmd->bn", sets, anchors) / self.network.views
                alike = losses.listnet(scores, _ranks([slates[place] for place in places], scores.device))
                apart = torch.stack([losses.orthogonality(own) for own in anchors]).mean()
            total = total + len(places) / len(slates) * (alike + self.apart * apart)
        return total

    def save(self, folder: Path) -> None:
        self.network.save(folder)


class Pairs(Recipe):
    """A cross-encoder: RankNet over the slate, each passage read alone with the query."""

    def __init__(self, model: Any, tokenizer: Any, *, max_tokens: int = 256) -> None:
        self.network, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens

    def prepare(self, slates: Sequence[Slate]) -> Any:
        queries = [slate.query for slate in slates for _ in slate.passages]
        passages = [text for slate in slates for text in slate.passages]
        return slates, self.tokenizer(
            queries, passages, truncation="longest_first", max_length=self.max_tokens, padding=True, return_tensors="pt"
        )

    def loss(self, prepared: Any) -> Tensor:
        slates, read = prepared
        logits = self.network(**read.to(self.network.device)).logits[:, 0].float()
        parts = torch.split(logits, [len(slate.passages) for slate in slates])
        most = max(map(len, parts))
        scores = torch.stack([nn.functional.pad(part, (0, most - len(part))) for part in parts])
        return losses.ranknet(scores, _ranks(slates, scores.device))

    def save(self, folder: Path) -> None:
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class Outcome(Recipe):
    """GRPO: sample replies, reward what they come to, and make the better than average likelier (Rank-R1, GroupRank).

    method: "setwise" (reward 1 for exactly the best of the set) or "group" (ranking and calibration). samples: replies a prompt.
    The reference model is the one that training starts from. `log` keeps, for each prompt, the mean reward, the share of replies
    that earned anything, and whether all earned the same (such groups teach nothing).
    """

    # Where nothing was earned nothing may move: decay would part the model from its reference, and Adam makes whole steps of the
    # slightest pull back to it.
    weight_decay: ClassVar[float] = 0.0

    def __init__(
        self,
        chat: TransformersModel,
        *,
        method: str = "setwise",
        samples: int = 8,
        reply_tokens: int = 1024,
        temperature: float = 1.0,
        kl: float = 0.001,
        passage_tokens: int = 100,
        reward: Callable[[str, Slate], float] | None = None,
    ) -> None:
        if method not in ("setwise", "group"):
            raise InvalidInput(f"method is {method!r}; it must be setwise or group")
        self.chat, self.network = chat, chat.model
        self.method, self.samples, self.reply_tokens = method, samples, reply_tokens
        self.temperature, self.kl, self.passage_tokens = temperature, kl, passage_tokens
        self.reward = reward or self._reward
        self.reference = copy.deepcopy(chat.model).eval().requires_grad_(False)
        self.log: list[dict[str, float]] = []

    def loss(self, prepared: Any) -> Tensor:
        slates: Sequence[Slate] = prepared
        total = torch.zeros((), device=self.network.device)
        for slate in slates:
            total = total + self._of(slate)
        return total / len(slates)

    def _of(self, slate: Slate) -> Tensor:
        read = self.chat.prompt_ids(self._prompt(slate), [])
        written = self._sampled(read)
        start = len(read)
        ends = self.chat.tokenizer.eos_token_id
        texts, mask = [], torch.zeros(written[:, start:].shape, device=written.device)
        for row, tokens in enumerate(written[:, start:].tolist()):
            length = tokens.index(ends) + 1 if ends in tokens else len(tokens)
            mask[row, :length] = 1.0
            texts.append(self.chat.tokenizer.decode(tokens[:length], skip_special_tokens=True))
        earned = torch.tensor([self.reward(text, slate) for text in texts], device=written.device)
        self.log.append(
            {
                "reward": float(earned.mean()),
                "rewarded": float((earned > 0).float().mean()),
                "level": float(earned.max() == earned.min()),
                "tokens": float(mask.sum(1).mean()),
            }
        )
        new = self._chances(self.network, written, start)
        with torch.no_grad():
            reference = self._chances(self.reference, written, start)
        return losses.grpo(new, new.detach(), reference, mask, losses.advantages(earned), kl=self.kl)

    def _prompt(self, slate: Slate) -> Prompt:
        labels = prompts.numbers(len(slate.passages))
        make = prompts.pick if self.method == "setwise" else prompts.group
        frame = partial(make, slate.query, labels)
        fitted = prompts.fit(self.chat, slate.passages, frame, reply=self.reply_tokens, most=self.passage_tokens)
        return frame(fitted.passages)

    def _reward(self, text: str, slate: Slate) -> float:
        labels = prompts.numbers(len(slate.passages))
        if self.method == "setwise":
            return rewards.pick_reward(text, labels, slate.order[0])
        grades = np.asarray(slate.grades or [1.0 / rank for rank in slate.ranks])
        return rewards.group_reward(text, labels, (10.0 * grades / max(grades.max(), 1e-9)).tolist())

    @torch.no_grad()
    def _sampled(self, read: list[int]) -> Tensor:
        """(G, prompt + reply) tokens."""
        self.network.eval()
        ids = torch.tensor([read], device=self.network.device)
        written: Tensor = self.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=self.temperature,
            top_k=0,
            num_return_sequences=self.samples,
            max_new_tokens=self.reply_tokens,
            pad_token_id=self.chat.tokenizer.pad_token_id or self.chat.tokenizer.eos_token_id,
            eos_token_id=self.chat.tokenizer.eos_token_id,
        )
        self.network.train()
        return written

    def _chances(self, network: Any, written: Tensor, start: int) -> Tensor:
        """(G, T) log-probabilities of the reply's tokens, at the temperature that they were drawn with."""
        logits = network(input_ids=written).logits[:, start - 1 : -1].float() / self.temperature
        chances: Tensor = logits.log_softmax(-1).gather(-1, written[:, start:].unsqueeze(-1)).squeeze(-1)
        return chances

    def save(self, folder: Path) -> None:
        self.chat.model.save_pretrained(folder)
        self.chat.tokenizer.save_pretrained(folder)
        (folder / "rewards.json").write_text(json.dumps(self.log), encoding="utf-8")
