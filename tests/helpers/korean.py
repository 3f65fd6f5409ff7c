"""A tiny encoder that knows some Korean, and reviews whose labels a few syllables tell."""

import csv
from pathlib import Path

import numpy as np

from tests.helpers.tiny_bert import write_tiny_bert


# 재미있 and 지루하 stand inside words with changing endings, so that words alone tell little.
STEMS = {"pos": ("재미있", "감동적이"), "neg": ("지루하", "실망이었")}
ENDINGS = ("네요", "다", "어요", "습니다", "던데", "군", "지만")
FILLER = ("영화", "배우", "연기", "이야기", "음악", "감독", "장면", "처음", "마지막", "친구", "오늘", "정말")


def write_korean_bert(folder: Path) -> Path:
    """Saves a random BERT of 2 layers x 16, with a WordPiece tokenizer that knows some words whole."""
    syllables = sorted(set("".join((*STEMS["pos"], *STEMS["neg"], *ENDINGS, *FILLER))))
    pieces = [*FILLER[:6], *syllables, *(f"##{syllable}" for syllable in syllables)]
    return write_tiny_bert(folder, pieces, layers=2, strip_accents=False, do_lower_case=False)


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
