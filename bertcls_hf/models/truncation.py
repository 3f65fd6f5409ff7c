"""Resolves how a run reads texts that are longer than its encoder takes."""

from transformers import PreTrainedTokenizerBase

from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.models.loading import Checkpoint
from bertcls_hf.models.modeling import SPECIAL_TOKENS, TruncationSettings, kept_at_start


# The longest text in tokens that a model takes if it reads more of a text than its encoder does at once.
DEFAULT_TEXT_LENGTH = 2048
# A quarter of the tokens from the start, and three quarters from the end: 128 and 382 of 510 in Sun et al. 2019.
DEFAULT_HEAD_TAIL_SPLIT = 0.25
# Strategies that no tokenizer has.
IN_THE_MODEL = ("head_tail", "windows")


def resolve_truncation(
    args: ModelArguments,
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int | None,
    is_pair: bool,
) -> TruncationSettings | None:
    """Returns how the model cuts or splits texts itself; None if the tokenizer's cut is all there is.

    Args:
        args: the options.
        checkpoint: the checkpoint of the model; a trained classifier keeps its settings.
        tokenizer: the tokenizer, whose `model_max_length` is the encoder's longest text.
        max_seq_length: `--max_seq_length`, which a trained classifier may get another time.
        is_pair: whether the rows are pairs of texts.

    Raises:
        ArgumentsError: if the texts are pairs, or the tokenizer's special tokens do not allow a cut; if the options
            contradict each other or a trained classifier.
    """
    if checkpoint.truncation is not None:
        return _kept(args, checkpoint.truncation.with_max_length(max_seq_length))
    is_own = args.truncation_strategy in IN_THE_MODEL
    if not is_own and not args.lexical_features:
        return None
    if is_own and is_pair:
        raise ArgumentsError(
            f"--truncation_strategy {args.truncation_strategy}: the texts are pairs, which are cut together: use head "
            "or tail"
        )
    if args.window_pooling == "attention" and checkpoint.labels is not None:
        raise ArgumentsError(
            "--window_pooling attention: the trained head has no weights for it: use mean or max, or "
            "--ignore_mismatched_sizes true for a new head"
        )
    settings = _new_settings(args, tokenizer, is_pair)
    if settings.max_text_length > settings.max_length:
        _check_special_tokens(tokenizer, settings, is_own)
    return settings


def _kept(args: ModelArguments, trained: TruncationSettings) -> TruncationSettings:
    asked = {"truncation_strategy": trained.strategy, "window_pooling": trained.window_pooling}
    for name, value in asked.items():
        if getattr(args, name) not in (None, value):
            raise ArgumentsError(
                f"the model was trained with --{name} {value}: leave it out, or pass --ignore_mismatched_sizes true "
                "for a new head"
            )
    return trained


def _new_settings(args: ModelArguments, tokenizer: PreTrainedTokenizerBase, is_pair: bool) -> TruncationSettings:
    length = tokenizer.model_max_length
    strategy = args.truncation_strategy or ("tail" if tokenizer.truncation_side == "left" else "head")
    split = DEFAULT_HEAD_TAIL_SPLIT if args.head_tail_split is None else args.head_tail_split
    longest_stride = length - SPECIAL_TOKENS - 1
    stride = min(length // 4, longest_stride) if args.window_stride is None else args.window_stride
    if stride > longest_stride:
        raise ArgumentsError(
            f"--window_stride {stride}: windows of --max_seq_length {length} tokens, {SPECIAL_TOKENS} of which are "
            f"special, can share {longest_stride} at most"
        )
    return TruncationSettings(
        strategy=strategy,
        max_length=length,
        max_text_length=_text_length(args.max_text_length, length, is_pair),
        kept_at_start=kept_at_start(strategy, length, split),
        stride=stride if strategy == "windows" else 0,
        window_pooling=args.window_pooling or "mean",
    )


def _text_length(asked: int | None, encoder_length: int, is_pair: bool) -> int:
    if is_pair and asked not in (None, encoder_length):
        raise ArgumentsError(
            f"--max_text_length {asked}: the texts are pairs, which are cut together: leave it out, or set it to "
            f"--max_seq_length, {encoder_length}"
        )
    if asked is not None and asked < encoder_length:
        raise ArgumentsError(
            f"--max_text_length {asked} is less than --max_seq_length, {encoder_length}: the encoder could not read "
            "its part"
        )
    return encoder_length if is_pair else max(asked or DEFAULT_TEXT_LENGTH, encoder_length)


def _check_special_tokens(tokenizer: PreTrainedTokenizerBase, settings: TruncationSettings, is_own: bool) -> None:
    """Refuses a tokenizer that does not put one special token before and one after a text."""
    if tokenizer.is_fast:
        # A call would change the truncation of a fast tokenizer, which is part of its hash; and its file may ask for
        # padding.
        encoded = tokenizer.backend_tokenizer.encode("a")
        tokens = zip(encoded.special_tokens_mask, encoded.attention_mask, strict=True)
        mask = [is_special for is_special, is_token in tokens if is_token]
    else:
        mask = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    if list(mask[:1]) + list(mask[-1:]) == [1, 1] and sum(mask) == SPECIAL_TOKENS < len(mask):
        return
    option, advice = (
        (f"--truncation_strategy {settings.strategy}", "use head or tail")
        if is_own
        else ("--lexical_features", f"set --max_text_length to --max_seq_length, {settings.max_length}")
    )
    raise ArgumentsError(
        f"{option}: {type(tokenizer).__name__} does not put one special token before and one after a text, so that "
        f"the model cannot cut it for the encoder: {advice}"
    )
