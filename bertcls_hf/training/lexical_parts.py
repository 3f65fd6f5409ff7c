"""Fits what a run learns from n-grams: the lexical features of its model, and the lexical baseline."""

from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.load import ClassificationData
from bertcls_hf.features.lexical_baseline import LexicalBaseline, lexical_baseline
from bertcls_hf.features.lexical_table import LexicalFeatures, fit_lexical_features
from bertcls_hf.training.resolve import ResolvedRun


def fitted_features(
    resolved: ResolvedRun, data: ClassificationData, tokenizer: PreTrainedTokenizerBase
) -> LexicalFeatures:
    """Fits the lexical features in one process; the others read them from the cache."""
    args, truncation = resolved.args, resolved.truncation
    assert truncation is not None
    with args.training.main_process_first(desc="lexical features"):
        seed = args.data.split_seed
        return fit_lexical_features(data, tokenizer, truncation.max_text_length, resolved.class_weights, seed)


def fitted_baseline(resolved: ResolvedRun, data: ClassificationData) -> LexicalBaseline | None:
    """Fits the lexical baseline of a training, in the process that writes the results.

    Returns None without `--lexical_baseline`, and where no row has a label.
    """
    training = resolved.args.training
    if resolved.args.learns_without_labels:
        return None
    if not (training.lexical_baseline and training.do_train and training.process_index == 0):
        return None
    return lexical_baseline(data, resolved.class_weights, resolved.args.data.split_seed)
