"""Models made on the spot: a word-level tokenizer over any words, and small networks with random weights from a seed."""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_uppercase
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<sep>"]
MARKS = ["[", "]", ">", ".", ",", ":", "<", "/", '"', "{", "}", "think", "answer", "reason"]
WORDS = [
    "red",
    "green",
    "blue",
    "apple",
    "pear",
    "plum",
    "river",
    "stone",
    "bird",
    "cloud",
    "query",
    "passage",
    "order",
]


def tokenizer(words: Iterable[str] = (), *, classes: bool = False) -> Any:
    """Words and marks are tokens of their own. classes: with <s> and <sep> around texts, as encoders have them."""
    written = [*SPECIAL, *MARKS, *map(str, range(101)), *ascii_uppercase, *WORDS, *words]
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(written))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    if classes:
        ids = [("<s>", vocabulary["<s>"]), ("<sep>", vocabulary["<sep>"])]
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A <sep>", pair="<s> $A <sep> $B:1 <sep>:1", special_tokens=ids
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        sep_token="<sep>",
        cls_token="<s>",
    )


def causal(own: Any, *, seed: int = 0, context: int = 2048) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        pad_token_id=own.pad_token_id,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
    )
    return LlamaForCausalLM(config).eval()


def seq2seq(own: Any, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(own),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        n_positions=2048,
        initializer_factor=2.0,
        dropout_rate=0.0,
        pad_token_id=own.pad_token_id,
        eos_token_id=own.eos_token_id,
        decoder_start_token_id=own.pad_token_id,
    )
    return T5ForConditionalGeneration(config).eval()


def _bert(own: Any, **more: Any) -> Any:
    return BertConfig(
        vocab_size=len(own),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=own.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
        **more,
    )


def encoder(own: Any, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return BertModel(_bert(own)).eval()


def classifier(own: Any, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return BertForSequenceClassification(_bert(own, num_labels=1)).eval()
