"""Texts to token ids, and ids to padded batches: one way for training, features, prediction and export."""

import copy
import functools
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.splits import Split
from bertcls_hf.data.streaming import TokenStream
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.errors import ArgumentsError


logger = logging.getLogger(__name__)

# Part of the cache key, which does not see the code: raise it when the tokens change.
TOKENIZATION_VERSION = 2
DEFAULT_LENGTH = 512
# Tokens of a row, by which samplers order them.
LENGTH_COLUMN = "length"
# Tokenizers that know no limit say so with a number of this size.
NO_LIMIT = 1_000_000
# What is padded; an attention mask follows from the lengths.
TOKEN_COLUMNS = ("input_ids", "token_type_ids")


def resolve_max_seq_length(asked: int | None, tokenizer: PreTrainedTokenizerBase, position_limit: int) -> int:
    """The longest text in tokens.

    Args:
        asked: `--max_seq_length`.
        tokenizer: knows its own limit, often.
        position_limit: what the encoder's position embeddings allow.

    Raises:
        ArgumentsError: more was asked for than the encoder has positions.
    """
    if asked is not None and asked > position_limit:
        raise ArgumentsError(f"--max_seq_length {asked}: the model has positions for {position_limit} tokens at most")
    if asked is not None:
        return asked
    own_limit = tokenizer.model_max_length if tokenizer.model_max_length < NO_LIMIT else DEFAULT_LENGTH
    return min(own_limit, position_limit, DEFAULT_LENGTH)


def tokenize(
    data: ClassificationData, tokenizer: PreTrainedTokenizerBase, args: DataArguments
) -> dict[str, Dataset | TokenStream]:
    """Token ids of every split: columns `input_ids`, `attention_mask`, (`token_type_ids`), `length` and `labels`.

    A stream is tokenized while it is read.

    Args:
        data: the splits.
        tokenizer: cuts texts at its `model_max_length`.
        args: number of processes, and whether to read what an earlier run tokenized.

    Raises:
        ArgumentsError: the length leaves no token for the texts.
    """
    max_seq_length = tokenizer.model_max_length
    special_tokens = tokenizer.num_special_tokens_to_add(pair=data.is_pair)
    if max_seq_length <= special_tokens:
        raise ArgumentsError(f"--max_seq_length {max_seq_length}: {special_tokens} of them are special tokens")
    # Hashed once, and before the first call: a call leaves its truncation behind in a fast tokenizer.
    settings = Hasher.hash((tokenizer, max_seq_length, TOKENIZATION_VERSION))
    return {
        # A stream tokenizes in a thread of its own, which fast tokenizers do not share with another.
        name: TokenStream(split, functools.partial(_tokenize_batch, tokenizer=copy.deepcopy(tokenizer)))
        if isinstance(split, TextStream)
        else split.map(
            _tokenize_batch,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer},
            remove_columns=split.column_names,
            num_proc=args.preprocessing_num_workers,
            load_from_cache_file=not args.overwrite_cache,
            new_fingerprint=Hasher.hash((split._fingerprint, settings)),
            desc=f"Tokenizing {name}",
        )
        for name, split in data.splits.items()
    }


def _tokenize_batch(batch: dict[str, list], tokenizer: PreTrainedTokenizerBase) -> dict[str, list]:
    encoded = encode_texts(tokenizer, batch["text"], batch.get("text_pair"))
    encoded[LENGTH_COLUMN] = [len(ids) for ids in encoded["input_ids"]]
    if "label" in batch:
        encoded["labels"] = batch["label"]
    return encoded


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str | None], pairs: Sequence[str | None] | None = None
) -> dict[str, list]:
    """Token ids of texts, and what else the tokenizer makes of them: a list per text in each column.

    Args:
        tokenizer: cuts texts at its `model_max_length`.
        texts: None counts as an empty text.
        pairs: the second text of each row, where there is one.
    """
    first = [text or "" for text in texts]
    second = None if pairs is None else [text or "" for text in pairs]
    return dict(tokenizer(first, second, truncation=True))


def pad_texts(
    columns: Mapping[str, Sequence[Sequence[int]]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """A batch of texts; see [`pad_flat_texts`].

    Args:
        columns: per name, a list for each text; others than [`TOKEN_COLUMNS`] are left out.
        tokenizer: knows what to pad with.
    """
    lengths = np.array([len(ids) for ids in columns["input_ids"]])
    flat = {
        name: np.fromiter(itertools.chain.from_iterable(columns[name]), dtype=np.int64)
        for name in TOKEN_COLUMNS
        if name in columns
    }
    return pad_flat_texts(flat, lengths, tokenizer)


def pad_flat_texts(
    columns: Mapping[str, np.ndarray], lengths: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """A batch of texts that stand one behind the other.

    Padding is on the right whatever the tokenizer's side, so that the first token of a text is its first position.

    Args:
        columns: (tokens,) integers for each name in [`TOKEN_COLUMNS`] that the tokenizer makes.
        lengths: (texts,) tokens of each text.
        tokenizer: knows what to pad with.

    Returns:
        (texts, longest) int64 by name, with an `attention_mask` of 1 for real tokens.
    """
    is_token = np.arange(lengths.max()) < lengths[:, None]
    padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    batch = {"attention_mask": torch.from_numpy(is_token.astype(np.int64))}
    for name, values in columns.items():
        padded = np.full(is_token.shape, padding[name], dtype=np.int64)
        padded[is_token] = values
        batch[name] = torch.from_numpy(padded)
    return batch


def token_lengths(split: Any) -> np.ndarray | None:
    """Tokens of each row, (rows,) int64; None for a split without them: a stream, or cached features."""
    # Any torch dataset can be trained on; only those of this package's splits have columns.
    return np.asarray(split[LENGTH_COLUMN][:]) if LENGTH_COLUMN in getattr(split, "column_names", ()) else None


def report_lengths(tokenized: Mapping[str, Split], tokenizer: PreTrainedTokenizerBase) -> None:
    """Logs how long the texts are, and how many reach the tokenizer's `model_max_length`; not of a stream."""
    for name, split in tokenized.items():
        lengths = token_lengths(split)
        if lengths is not None:
            cut = int((lengths >= tokenizer.model_max_length).sum())
            logger.info(
                "%s: %.0f tokens on average, %d of %d texts reach %d",
                name,
                lengths.mean(),
                cut,
                len(lengths),
                tokenizer.model_max_length,
            )
