"""A tiny encoder that knows some Korean, and reviews whose labels a few syllables tell."""

import csv
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast


# 재미있 and 지루하 stand inside words with changing endings, so that words alone tell little.
STEMS = {"pos": ("재미있", "감동적이"), "neg": ("지루하", "실망이었")}
ENDINGS = ("네요", "다", "어요", "습니다", "던데", "군", "지만")
FILLER = ("영화", "배우", "연기", "이야기", "음악", "감독", "장면", "처음", "마지막", "친구", "오늘", "정말")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_korean_bert(folder: Path) -> Path:
    """Saves a random BERT of 2 layers x 16, with a WordPiece tokenizer that knows some words whole."""
    syllables = sorted(set("".join((*STEMS["pos"], *STEMS["neg"], *ENDINGS, *FILLER))))
    pieces = [*SPECIAL, *FILLER[:6], *syllables, *(f"##{syllable}" for syllable in syllables)]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    BertTokenizerFast(
        vocab=str(vocabulary), model_max_length=64, strip_accents=False, do_lower_case=False
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(dict.fromkeys(pieces)), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def korean_reviews(rows: int, seed: int) -> dict[str, list]:
    """Texts of seven words, of which one, at a random place, tells the label, and numeric labels."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(rows):
        label = int(generator.integers(2))
        words = [str(word) for word in generator.choice(FILLER, 7)]
        stem = generator.choice(STEMS[("neg", "pos")[label]])
        words[generator.integers(7)] = f"{stem}{generator.choice(ENDINGS)}"
        texts.append(" ".join(words))
        labels.append(label)
    return {"text": texts, "label": labels}


def write_korean_reviews(path: Path, rows: int, seed: int) -> Path:
    """A csv with the columns text and label."""
    reviews = korean_reviews(rows, seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(reviews["text"], (("neg", "pos")[label] for label in reviews["label"]), strict=True))
    return path
