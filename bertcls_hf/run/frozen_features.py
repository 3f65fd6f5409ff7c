"""The features that a frozen encoder makes of all texts, computed once and cached, for commands that train none."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertcls_hf.config.arguments import Arguments, DataArguments
from bertcls_hf.config.command import enter_phase
from bertcls_hf.data.input_paths import check_files
from bertcls_hf.run.pipeline import start


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertcls_hf.data.labels import LabelSet
    from bertcls_hf.data.load import ClassificationData
    from bertcls_hf.features.dataset import FeatureDataset
    from bertcls_hf.models.modeling import TextClassifier, TruncationSettings
    from bertcls_hf.training.resolve import ResolvedRun


UNLABELLED = "unlabelled"
# Reads the splits, given the data options and the labels of a trained classifier (None for an encoder).
ReadSplits = Callable[[DataArguments, "LabelSet | None"], "ClassificationData"]


@dataclass(frozen=True)
class FrozenFeatures:
    """The splits of a run, and what its frozen encoder makes of them.

    Args:
        resolved: the run.
        tokenizer: its tokenizer.
        model: its classifier, with a new head.
        data: the splits with their texts; `unlabelled` are those of `--unlabelled_file`, where it is given.
        features: the features of each split that was asked for.
    """

    resolved: "ResolvedRun"
    tokenizer: "PreTrainedTokenizerBase"
    model: "TextClassifier"
    data: "ClassificationData"
    features: "dict[str, FeatureDataset]"


def frozen_features(
    args: Arguments, read_splits: ReadSplits | None = None, only: Collection[str] | None = None
) -> FrozenFeatures:
    """Reads the data of a run, and computes the features of its texts, of which the cache has most the next time.

    Args:
        args: the checked options, with `--boost`.
        read_splits: reads the splits but for the unlabelled texts, and may refuse them; by default as a training does.
        only: the splits whose features are computed; None for all.

    Raises:
        RunError: an error that the user can fix.
    """
    check_files(args.data)
    # Imported here, so that a mistyped option or file name fails at once.
    from bertcls_hf.data.datasets_cache import require_writable_cache, with_sound_cache
    from bertcls_hf.data.load import load_data
    from bertcls_hf.data.tokenization import report_lengths, tokenize
    from bertcls_hf.data.unlabelled import load_unlabelled
    from bertcls_hf.features.extractor import FeatureExtractor
    from bertcls_hf.models.truncation import resolve_truncation
    from bertcls_hf.training.resolve import resolve_run

    enter_phase("while the encoder was opened")
    checkpoint, tokenizer = start(args)
    enter_phase("while the data was read and tokenized")
    require_writable_cache()

    def read() -> "tuple[ClassificationData, TruncationSettings | None, dict[str, Any]]":
        if read_splits is None:
            data = load_data(args.data, checkpoint.labels, trains=True, predicts=False)
        else:
            data = read_splits(args.data, checkpoint.labels)
        unlabelled = load_unlabelled(args.data, data)
        if unlabelled is not None:
            data = replace(data, splits={**data.splits, UNLABELLED: unlabelled})
        truncation = resolve_truncation(args.model, checkpoint, tokenizer, args.data.max_seq_length, data.is_pair)
        encoded = {name: split for name, split in data.splits.items() if only is None or name in only}
        return data, truncation, tokenize(replace(data, splits=encoded), tokenizer, args.data, truncation)

    data, truncation, splits = with_sound_cache(read)
    report_lengths(splits, tokenizer, truncation)
    resolved = resolve_run(args, checkpoint, data, truncation)
    model = resolved.load_model()
    enter_phase("while features were computed")
    extractor = FeatureExtractor(model, tokenizer, resolved.args)
    features = {name: extractor.features(name, split) for name, split in splits.items()}
    return FrozenFeatures(resolved, tokenizer, model, data, features)
