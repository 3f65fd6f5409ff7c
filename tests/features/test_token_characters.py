"""The characters of each token, by the kind of the tokenizer."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from bertcls_hf.features.token_characters import MOST_CHARACTERS, token_characters
from bertcls_hf.models.modeling import NO_CHARACTER
from tests.helpers.korean import write_korean_bert


def texts_of(characters: np.ndarray, ids: list[int]) -> list[str]:
    rows = (characters[ids].astype(np.int64) - NO_CHARACTER).astype(np.uint16)
    return [row[row > 0].tobytes().decode("utf-16-le") for row in rows]


def sentence_piece(*pieces: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -1.0) for piece in pieces)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_word_pieces(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_korean_bert(tmp_path / "bert"))
    characters = token_characters(tokenizer)
    assert characters is not None
    assert characters.shape == (len(tokenizer), MOST_CHARACTERS)
    ids = tokenizer("영화 재미있네요 film", add_special_tokens=False)["input_ids"]
    assert texts_of(characters, ids) == ["▁영화", "▁재", "미", "있", "네", "요", "\ufffd"]


def test_ideographs_are_no_words_with_spaces(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(
        "\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "電", "影", "film")), encoding="utf-8"
    )
    tokenizer = BertTokenizerFast(vocab=str(vocabulary))
    characters = token_characters(tokenizer)
    assert characters is not None
    assert texts_of(characters, tokenizer("電影film", add_special_tokens=False)["input_ids"]) == ["電", "影", "▁film"]


def test_sentence_pieces_astral_and_long_ones() -> None:
    tokenizer = sentence_piece("▁좋은", "▁", "電影", "😀", "▁abcdefghijklmnop")
    characters = token_characters(tokenizer)
    assert characters is not None
    assert texts_of(characters, list(range(6))) == ["\ufffd", "▁좋은", "▁", "電影", "😀", "▁abcdefghijk"]


def test_bytes_have_none() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "Ġ": 1}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert token_characters(PreTrainedTokenizerFast(tokenizer_object=tokenizer)) is None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
    assert token_characters(PreTrainedTokenizerFast(tokenizer_object=tokenizer)) is None


@pytest.mark.parametrize("text", ["재미있네요 영화", "영화 재미있네요"])
def test_equal_text_has_equal_characters_however_it_is_cut(tmp_path: Path, text: str) -> None:
    word_piece = AutoTokenizer.from_pretrained(write_korean_bert(tmp_path / "bert"))
    pieces = sentence_piece("▁재미있", "네요", "▁영화")
    read = []
    for tokenizer in (word_piece, pieces):
        characters = token_characters(tokenizer)
        assert characters is not None
        read.append("".join(texts_of(characters, tokenizer(text, add_special_tokens=False)["input_ids"])))
    assert read[0] == read[1]
