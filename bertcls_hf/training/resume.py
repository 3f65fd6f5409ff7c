"""Decides whether a training goes on from a checkpoint: only where it is the same training."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bertcls_hf.config.arguments import PUSH_OPTIONS
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.manifests import IDENTITY, MANIFEST_FILE, read_manifest
from bertcls_hf.training.checkpoints import checkpoint_problem, names_folder, step_of
from bertcls_hf.training.recipe import resolved_options
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.run_identity import RunIdentity, identify


logger = logging.getLogger(__name__)

# A resumed run may change these options without a warning. What the data holds is compared by content.
HARMLESS_ON_RESUME = frozenset({
    "output_dir", "lexical_baseline", "logging_steps", "report_to", "save_total_limit", "seeds", "cross_validation",
    "preprocessing_num_workers", "overwrite_cache", "do_train", "do_eval", "do_predict", "prediction_format",
    "csv_safe", "push_to_hub", *PUSH_OPTIONS,
})  # fmt: skip


def identified(
    resolved: ResolvedRun, digests: Mapping[str, str], options: Mapping[str, Any], max_seq_length: int
) -> ResolvedRun:
    """Returns the run with its identity.

    Args:
        resolved: the run, whose options all have their final values.
        digests: those of [`content_digests_of`].
        options: the options that the user gave, by field name.
        max_seq_length: the longest text in tokens.
    """
    recipe = resolved_options(resolved.args, options, resolved.config, max_seq_length)
    return replace(resolved, identity=identify(resolved, digests, recipe))


def with_own_checkpoint(resolved: ResolvedRun, asked: str | None) -> ResolvedRun:
    """Returns the run with a checkpoint to resume from that is of the same training.

    Args:
        resolved: the run, with its identity and the newest complete checkpoint.
        asked: the value of `--resume_from_checkpoint`. If it names no folder, an older checkpoint of the same training
            is taken where newer ones are of another.

    Raises:
        ArgumentsError: if all are of another training; the message says how the newest differs.
    """
    training, identity = resolved.args.training, resolved.identity
    if training.resume_from_checkpoint is None or identity is None:
        return resolved
    newest = Path(training.resume_from_checkpoint)
    differences = checkpoint_differences(newest, identity)
    if not differences:
        logger.info("resuming from %s", newest)
        _warn_of_changes(newest, identity)
        return resolved
    if asked is not None and not names_folder(asked):
        for older in _older_checkpoints(newest):
            if checkpoint_problem(older, training.world_size) is None and not checkpoint_differences(older, identity):
                listed = "; ".join(differences)
                logger.warning("%s is of another training (%s): resuming from %s", newest, listed, older)
                args = replace(resolved.args, training=training.resolved(resume_from_checkpoint=str(older)))
                return replace(resolved, args=args)
    raise ArgumentsError(
        f"{newest} is of another training: {'; '.join(differences)}. Resume with its data and options, use a new "
        "--output_dir, or leave --resume_from_checkpoint out, which trains anew"
    )


def checkpoint_differences(checkpoint: Path, identity: RunIdentity) -> list[str]:
    """Lists how the training of a complete checkpoint differs from another, in words."""
    try:
        return identity.differences(RunIdentity.from_json(read_manifest(checkpoint).get(IDENTITY)))
    except ValueError:
        return [f"{MANIFEST_FILE} does not say of which"]


def _older_checkpoints(checkpoint: Path) -> Iterator[Path]:
    siblings = sorted(checkpoint.parent.glob("checkpoint-*"), key=step_of, reverse=True)
    return (folder for folder in siblings if step_of(folder) < step_of(checkpoint))


def _warn_of_changes(checkpoint: Path, identity: RunIdentity) -> None:
    """Logs a warning for each option that a resumed run changes, of those that it may change."""
    before = RunIdentity.from_json(read_manifest(checkpoint)[IDENTITY]).recipe
    now = identity.recipe
    for name in sorted({*before, *now} - HARMLESS_ON_RESUME):
        if before.get(name) != now.get(name):
            logger.warning("resuming with another %s: %s before, %s now", name, before.get(name), now.get(name))
