"""Converts texts to token ids, and these to padded batches, for training, features, prediction and export alike."""

import copy
import functools
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


if TYPE_CHECKING:
    from bertcls_hf.models.modeling import TruncationSettings


logger = logging.getLogger(__name__)

# Part of the key in the datasets cache, which does not depend on the code. Increase it when the tokens change.
TOKENIZATION_VERSION = 2
DEFAULT_LENGTH = 512
# The column with the number of tokens of each row, by which samplers group the rows.
LENGTH_COLUMN = "length"
# A tokenizer without a limit has a `model_max_length` of at least this number.
NO_LIMIT = 1_000_000
# The columns that are padded. The attention mask is computed from the lengths.
TOKEN_COLUMNS = ("input_ids", "token_type_ids")


def resolve_max_seq_length(asked: int | None, tokenizer: PreTrainedTokenizerBase, position_limit: int) -> int:
    """Returns the number of tokens, special ones included, at which longer texts are cut.

    Args:
        asked: `--max_seq_length`. None takes 512, or the limit of the tokenizer or the encoder if it is lower.
        tokenizer: the tokenizer, which may have a limit of its own.
        position_limit: the largest number of tokens for which the encoder has positions.

    Raises:
        ArgumentsError: `asked` is above `position_limit`.
    """
    if asked is not None and asked > position_limit:
        raise ArgumentsError(f"--max_seq_length {asked}: the model has positions for {position_limit} tokens at most")
    if asked is not None:
        return asked
    own_limit = tokenizer.model_max_length if tokenizer.model_max_length < NO_LIMIT else DEFAULT_LENGTH
    return min(own_limit, position_limit, DEFAULT_LENGTH)


def leave_out_token_types(tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes the tokenizer return no `token_type_ids`, here and wherever it is loaded after it is saved."""
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    # The tokenizer saves its input names only if they are among its initial arguments.
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names


def tokenize(
    data: ClassificationData,
    tokenizer: PreTrainedTokenizerBase,
    args: DataArguments,
    truncation: "TruncationSettings | None" = None,
    keeps_whole: bool = False,
) -> dict[str, Dataset | TokenStream]:
    """Tokenizes every split. A stream is tokenized while it is read.

    Args:
        data: the splits.
        tokenizer: the tokenizer, which cuts texts at its `model_max_length`.
        truncation: how the model reads longer texts; they are cut here as the model cuts them, but not for windows.
        keeps_whole: whether another part of the model reads more of a text than its encoder, so that nothing is cut.
        args: the data options, which give the number of processes and say whether to ignore the datasets cache.

    Returns:
        The splits with the columns `input_ids`, `attention_mask`, `token_type_ids` (if the tokenizer returns them),
        `length`, which is the number of tokens that the encoder reads, and `labels` (if the split has them).

    Raises:
        ArgumentsError: `model_max_length` leaves no token for the texts beside the special tokens.
    """
    max_seq_length = tokenizer.model_max_length
    special_tokens = tokenizer.num_special_tokens_to_add(pair=data.is_pair)
    if max_seq_length <= special_tokens:
        raise ArgumentsError(f"--max_seq_length {max_seq_length}: {special_tokens} of them are special tokens")
    # The tokenizer is hashed before its first call, because a call changes the truncation state of a fast tokenizer,
    # which is part of the hash.
    settings_hash = Hasher.hash((tokenizer, max_seq_length, truncation, keeps_whole, TOKENIZATION_VERSION))
    reading: dict[str, Any] = {"truncation": truncation, "keeps_whole": keeps_whole}
    return {
        # A stream gets a copy of the tokenizer, because it is tokenized in another thread, and two threads cannot use
        # one fast tokenizer at once.
        name: TokenStream(split, functools.partial(_tokenize_batch, tokenizer=copy.deepcopy(tokenizer), **reading))
        if isinstance(split, TextStream)
        else split.map(
            _tokenize_batch,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer, **reading},
            remove_columns=split.column_names,
            num_proc=args.preprocessing_num_workers,
            load_from_cache_file=not args.overwrite_cache,
            new_fingerprint=Hasher.hash((split._fingerprint, settings_hash)),
            desc=f"Tokenizing {name}",
        )
        for name, split in data.splits.items()
    }


def _tokenize_batch(
    batch: dict[str, list],
    tokenizer: PreTrainedTokenizerBase,
    truncation: "TruncationSettings | None",
    keeps_whole: bool,
) -> dict[str, list]:
    takes_whole = truncation is not None and (keeps_whole or truncation.strategy in ("head_tail", "windows"))
    limit = truncation.max_text_length if truncation is not None and takes_whole else None
    encoded = encode_texts(tokenizer, batch["text"], batch.get("text_pair"), limit)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    if truncation is not None and truncation.strategy == "head_tail" and not keeps_whole:
        encoded = {name: [cut_tokens(row, truncation) for row in rows] for name, rows in encoded.items()}
    encoded[LENGTH_COLUMN] = (lengths if truncation is None else truncation.encoder_lengths(lengths)).tolist()
    if "label" in batch:
        encoded["labels"] = batch["label"]
    return encoded


def cut_tokens(values: Sequence[int], settings: "TruncationSettings") -> Sequence[int]:
    """Cuts the values of a text's tokens, as the model cuts them for its encoder."""
    if len(values) <= settings.max_length:
        return values
    return [*values[: settings.kept_at_start], *values[settings.kept_at_start - settings.max_length :]]


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | None],
    pairs: Sequence[str | None] | None = None,
    max_length: int | None = None,
) -> dict[str, list]:
    """Tokenizes texts; returns the tokenizer's columns, such as `input_ids`, with one list per text.

    Args:
        tokenizer: the tokenizer, which cuts texts at its `model_max_length`.
        texts: the texts; None counts as an empty text.
        pairs: the second text of each row; None if the rows are single texts.
        max_length: the number of tokens at which texts are cut; by default the tokenizer's `model_max_length`.
    """
    first = [text or "" for text in texts]
    second = None if pairs is None else [text or "" for text in pairs]
    return dict(tokenizer(first, second, truncation=True, max_length=max_length))


def pad_texts(
    columns: Mapping[str, Sequence[Sequence[int]]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Pads texts to a batch; see [`pad_flat_texts`].

    Args:
        columns: one list of integers per text, by column name. Columns other than [`TOKEN_COLUMNS`] are left out.
        tokenizer: the tokenizer, which gives the padding ids.
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
    """Pads texts, whose tokens are concatenated, to a batch.

    Padding is on the right even if the tokenizer pads on the left, so that the first token of each text is at the
    first position.

    Args:
        columns: (tokens,) integers by column name: those of [`TOKEN_COLUMNS`] that the tokenizer returns.
        lengths: (texts,) integers, the number of tokens of each text.
        tokenizer: the tokenizer, which gives the padding ids.

    Returns:
        (texts, longest) int64 by column name, including an `attention_mask` of 1 for real tokens and 0 for padding.
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
    """Returns (rows,) int64, the number of tokens of each row; None for a stream, or for cached features."""
    # A caller can train on any torch dataset, which may have no `column_names`.
    return np.asarray(split[LENGTH_COLUMN][:]) if LENGTH_COLUMN in getattr(split, "column_names", ()) else None


def report_lengths(
    tokenized: Mapping[str, Split], tokenizer: PreTrainedTokenizerBase, truncation: "TruncationSettings | None" = None
) -> None:
    """Logs the mean length of each split except streams, and how many texts reach the encoder's longest text."""
    limit = tokenizer.model_max_length if truncation is None else truncation.max_length
    for name, split in tokenized.items():
        lengths = token_lengths(split)
        if lengths is None:
            continue
        at_limit = int((lengths >= limit).sum())
        windows = ""
        if truncation is not None and truncation.strategy == "windows":
            # All windows of a text but the last have the full length.
            windows = f", in {-(-lengths // limit).sum() / len(lengths):.1f} windows"
        logger.info(
            "%s: %.0f tokens on average%s, %d of %d texts reach %d",
            name, lengths.mean(), windows, at_limit, len(lengths), limit,
        )  # fmt: skip
