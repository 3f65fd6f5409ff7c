"""A tiny random BERT with a WordPiece tokenizer of given pieces."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from tests.helpers.reviews import WORDS


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_tiny_bert(folder: Path, pieces: Iterable[str], layers: int, **tokenizer_options: Any) -> Path:
    """Saves a random BERT of some layers x 16 (dropout on, 64 positions) and its tokenizer, which knows the pieces."""
    distinct = list(dict.fromkeys((*SPECIAL, *pieces)))
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(distinct) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=64, **tokenizer_options).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(distinct), hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def write_review_bert(folder: Path, layers: int) -> Path:
    """Saves a tiny BERT that knows the words of [`write_reviews`], and the letters of all others."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*WORDS, *letters[1:], *(f"##{c}" for c in letters), *"0123456789.,!"]
    return write_tiny_bert(folder, pieces, layers)
