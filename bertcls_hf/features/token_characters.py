"""The characters of each token, from which a model reads n-grams of characters off token ids."""

import re

import numpy as np
from transformers import PreTrainedTokenizerBase

from bertcls_hf.models.modeling import NO_CHARACTER


# Longer tokens are rare, and mostly no words.
MOST_CHARACTERS = 12
SPACE, UNKNOWN = "\u2581", "\ufffd"
# Each of these is a word of its own to the tokenizers of BERT, wherever it stands.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def token_characters(tokenizer: PreTrainedTokenizerBase) -> np.ndarray | None:
    """Returns the characters of every token.

    Args:
        tokenizer: of the WordPiece or the SentencePiece kind.

    Returns:
        (tokens, 12) int16 UTF-16 units less 32,768, and -32,768 after the last one. A space stands before each word.
        None for tokenizers whose tokens are bytes, or that are not of the tokenizers library.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "ByteLevel" in repr(backend.pre_tokenizer):
        return None
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    continuing = getattr(backend.model, "continuing_subword_prefix", None)
    codes = np.zeros((len(tokens), MOST_CHARACTERS), dtype=np.int32)
    for number, token in enumerate(tokens):
        text = UNKNOWN if token == tokenizer.unk_token else _text_of(token, continuing)
        units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")[:MOST_CHARACTERS]
        codes[number, : len(units)] = units
    return (codes + NO_CHARACTER).astype(np.int16)


def _text_of(token: str, continuing: str | None) -> str:
    if not continuing:
        return token
    if token.startswith(continuing):
        return token.removeprefix(continuing)
    return token if _IDEOGRAPH.match(token) else SPACE + token
