"""Cache the features of very many texts on many machines with Ray Data, before a head is trained on them.

Every worker reads, tokenizes and encodes groups of files of a streamed recipe, and adds their features to one cache,
whose names are the content: what was computed is not computed again, whatever dies meanwhile. The recipe itself then
finds all features. All machines must see the files and the cache under the same paths.

Example:
    python examples/extract_with_ray.py --workers 2 -- --boost true --streaming true --train_file 'shards/*.parquet' \
        --validation_file dev.csv --boost_cache_dir /shared/features --boost_dtype float16
    bertcls train --boost true --streaming true --train_file 'shards/*.parquet' \
        --validation_file dev.csv --boost_cache_dir /shared/features --boost_dtype float16
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import ray

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.config.command import run_command
from bertcls_hf.config.parsing import parse_arguments
from bertcls_hf.errors import ArgumentsError


PROGRAM = "extract_with_ray.py"


class CacheGroup:
    """Loads the encoder of a recipe once, and caches the features of one group of files after the other."""

    def __init__(self, words: list[str]):
        from bertcls_hf.data.load import load_data
        from bertcls_hf.data.tokenization import tokenize
        from bertcls_hf.features.extractor import FeatureExtractor
        from bertcls_hf.models.truncation import resolve_truncation
        from bertcls_hf.run.pipeline import start
        from bertcls_hf.training.resolve import resolve_run

        args, _ = parse_arguments(words, PROGRAM)
        checkpoint, tokenizer = start(args)
        data = load_data(args.data, checkpoint.labels, trains=True, predicts=False)
        truncation = resolve_truncation(args.model, checkpoint, tokenizer, args.data.max_seq_length, data.is_pair)
        self.stream: Any = tokenize(data, tokenizer, args.data, truncation)["train"]
        self.extractor = FeatureExtractor(
            resolve_run(args, checkpoint, data, truncation).load_model(), tokenizer, args
        )

    def __call__(self, task: dict[str, int]) -> dict[str, int]:
        """Caches a group, and returns the number of its rows."""
        from bertcls_hf.features.stream_extraction import cache_group

        return {"group": task["group"], "rows": cache_group(self.extractor, "train", self.stream, task["group"])}


def groups_of(args: Arguments) -> int:
    """Returns the number of groups of files of a streamed recipe."""
    from bertcls_hf.data.load import load_data
    from bertcls_hf.data.streaming import TokenStream

    texts: Any = load_data(args.data, None, trains=True, predicts=False).splits["train"]
    return TokenStream(texts, lambda columns: columns).file_groups


def run(words: Sequence[str]) -> None:
    """Shares the groups of files out among the workers, and counts the rows."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Cache features with Ray Data.")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with the encoder (%(default)s)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a worker (%(default)s)")
    parser.add_argument("options", nargs="+", help="after --: the recipe and options of bertcls train")
    job = parser.parse_args(words)
    args, _ = parse_arguments(job.options, PROGRAM)
    if not (args.boost.boost and args.data.streaming):
        raise ArgumentsError("only a recipe with --boost and --streaming caches features while it reads")
    tasks = [{"group": group} for group in range(groups_of(args))]
    cached = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
        CacheGroup, fn_constructor_args=(job.options,), num_gpus=job.gpus, concurrency=job.workers
    )
    print(f"{sum(line['rows'] for line in cached.iter_rows()):,} rows in {len(tasks)} groups of files")


if __name__ == "__main__":
    sys.exit(run_command(run, None))
