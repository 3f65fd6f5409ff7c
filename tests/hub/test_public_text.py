"""What a card may show: escaped texts, and options without the machine's paths."""

import json
from pathlib import Path

import pytest

from bertcls_hf.hub.card.public_text import escape_markdown, public_command, quote, without_local_paths


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", "a &#124; b"),
        ("one\ntwo\r\n\tthree", "one two three"),
        ("<script>alert('x')</script> & more", "&lt;script&gt;alert('x')&lt;/script&gt; &amp; more"),
        (
            "*bold* _it_ in_word `code` [a](http://b)",
            "&#42;bold&#42; &#95;it&#95; in_word &#96;code&#96; &#91;a&#93;(http&#58;//b)",
        ),
        ("정말 좋은 영화 👍🏽 naïve", "정말 좋은 영화 👍🏽 naïve"),
        ("\x00\x1bbell\u202eturned\ud800", "bellturned"),
        ("10:30, :smile: and <@me>", "10:30, &#58;smile: and &lt;&#64;me&gt;"),
        ("$x$ ~~no~~ \\|", "&#36;x&#36; &#126;&#126;no&#126;&#126; &#92;&#124;"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str, shown: str) -> None:
    assert escape_markdown(text) == shown


def test_a_quote_is_cut_before_it_is_escaped() -> None:
    assert quote("|" * 500) == "&#124;" * 199 + "…"
    assert quote("short") == "short"
    assert quote(None) == ""


def test_paths_outside_the_working_directory_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "project"
    inside.mkdir()
    monkeypatch.chdir(inside)
    options = {
        "train_file": str(tmp_path / "secret place/train.csv"),
        "test_file": str(inside / "data/test.csv"),
        "validation_file": "../elsewhere/dev.csv",
        "boost_cache_dir": "~/caches/boost",
        "output_dir": "outputs/mine",
        "model_name_or_path": "me/model",
        "deepspeed": {"offload": {"nvme_path": "/mnt/nvme0/swap"}},
        "csv_delimiter": "/",
        "text_column_names": ["a", "b"],
        "num_train_epochs": 3.0,
        "trackio_space_id": "https://hub.example/spaces/me",
        "hub_model_id": "s3://key:secret@bucket/data/*.parquet?X-Signature=abc#part",
        "dataset_name": "file:///home/someone/data.parquet",
    }
    assert without_local_paths(options) == {
        **options,
        "train_file": "train.csv",
        "test_file": "data/test.csv",
        "validation_file": "dev.csv",
        "boost_cache_dir": "boost",
        "deepspeed": {"offload": {"nvme_path": "swap"}},
        "hub_model_id": "s3://bucket/data/*.parquet",
        "dataset_name": "data.parquet",
    }


def test_a_command_line_loses_paths_and_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = json.dumps({"path": "/home/someone/ds.json", "n": 1})
    arguments = [
        "recipes/a.yaml",
        "--train_file=/home/someone/my data/t.csv",
        "--label_delimiter",
        "|",
        "--x",
        settings,
    ]
    assert public_command("python run_classification.py", arguments) == (
        "python run_classification.py recipes/a.yaml --train_file=t.csv --label_delimiter '|' "
        """--x '{"path": "ds.json", "n": 1}'"""
    )
