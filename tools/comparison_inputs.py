"""The data and the tiny model on which compare_checkouts.py runs its commands."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast


WORDS = (
    "good great fine lovely superb bad awful poor dreadful boring film movie story plot acting the a was is it very "
    "not and but so really of in to this that one two three four five six"
).split()
POSITIVE, NEGATIVE, FILLER = WORDS[:5], WORDS[5:10], WORDS[10:]
HEADER = ("text", "label")


def review(index: int) -> tuple[str, str]:
    """A text whose words tell its label, and whose length differs from its neighbours'."""
    words = POSITIVE if index % 2 else NEGATIVE
    length = 3 + (index * 7) % 11
    text = " ".join(
        words[(index + i) % 5] if i % 3 == 0 else FILLER[(index * 5 + i * 3) % len(FILLER)] for i in range(length)
    )
    return f"{text} {index}", "pos" if index % 2 else "neg"


def reviews(start: int, rows: int) -> list[tuple[str, str]]:
    return [review(index) for index in range(start, start + rows)]


def write_inputs(folder: Path) -> None:
    """Writes model and data files into an empty folder."""
    write_model(folder / "bert")
    write_good_data(folder)
    write_bad_data(folder)


def write_model(folder: Path) -> None:
    """A random BERT of 3 layers x 16 with its WordPiece tokenizer (dropout on, 64 positions)."""
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *WORDS, *letters[1:], *(f"##{c}" for c in letters), *"0123456789.,!"])
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)


def write_good_data(folder: Path) -> None:
    test = reviews(200, 17)
    write_csv(folder / "train.csv", HEADER, reviews(0, 48))
    write_csv(folder / "validation.csv", HEADER, reviews(100, 16))
    write_csv(folder / "test.csv", HEADER, test)
    write_jsonl(folder / "test.jsonl", [{"text": text, "label": label} for text, label in test])
    write_parquet(folder / "test.parquet", test)
    (folder / "lines.txt").write_text("".join(f"{text}\n" for text, _ in test), encoding="utf-8")
    (folder / "shards").mkdir()
    for shard in range(3):
        write_parquet(folder / "shards" / f"{shard}.parquet", reviews(16 * shard, 16))
    write_csv(folder / "regression.csv", HEADER, [(text, (i * 37 % 100) / 20 + 0.01) for i, (text, _) in rows_of(60)])
    write_csv(
        folder / "pairs.csv",
        ("first", "second", "label"),
        [(text, review(i + 7 + i % 2)[0], "same" if i % 2 else "other") for i, (text, _) in rows_of(60)],
    )
    labels = (["a"], ["a", "b"], ["b", "c"], ["c"])
    write_jsonl(folder / "multi_label.jsonl", [{"text": text, "label": labels[i % 4]} for i, (text, _) in rows_of(60)])


def write_bad_data(folder: Path) -> None:
    train = reviews(0, 48)
    header = "text,label\n"
    (folder / "bad_row.csv").write_text(header + "good film,pos\nbad film,neg,too,many\n", encoding="utf-8")
    (folder / "empty.csv").write_text("", encoding="utf-8")
    (folder / "train.docx").write_text("good film", encoding="utf-8")
    (folder / "broken.parquet").write_bytes(b"PAR1 this is no table PAR1")
    (folder / "cut.jsonl").write_text('{"text": "good film", "label": "pos"}\n{"text": "bad fi', encoding="utf-8")
    (folder / "latin1.csv").write_bytes(f"{header}café film,pos\nbad film,neg\n".encode("latin-1"))
    (folder / "unknown_key.yaml").write_text("learning_rat: 1.0e-3\n", encoding="utf-8")
    (folder / "broken.yaml").write_text("learning_rate: [1\n", encoding="utf-8")
    write_csv(folder / "empty_text.csv", HEADER, [*train, (" ", "pos")])
    write_csv(folder / "missing_label.csv", HEADER, [*train, ("good film", "")])
    write_csv(folder / "unseen_label.csv", HEADER, [*reviews(100, 8), ("good film", "neutral")])
    write_csv(folder / "one_label.csv", HEADER, [(text, "pos") for text, _ in train])


def rows_of(count: int) -> Iterable[tuple[int, tuple[str, str]]]:
    return enumerate(reviews(0, count))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    texts, labels = zip(*rows, strict=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
