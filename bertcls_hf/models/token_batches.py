"""Forms batches of about equally many tokens, and runs them one after the other or in one thread each."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch


# Small batches keep a layer's activations in the processor's cache; larger ones fill an accelerator.
TOKENS_PER_BATCH = {"cpu": 2048}
TOKENS_PER_ACCELERATOR_BATCH = 32_768
# The number of kernels that the layers of one batch need. oneDNN reads it when a process first uses oneDNN.
ONEDNN_KERNELS = "32"


def token_budget(device: torch.device) -> int:
    """Returns the number of tokens of a batch, padding included, that suits the device."""
    return TOKENS_PER_BATCH.get(device.type, TOKENS_PER_ACCELERATOR_BATCH)


def token_budget_batches(lengths: np.ndarray, budget: int) -> Iterator[slice]:
    """Yields batches of consecutive rows whose padded size stays within the budget.

    Args:
        lengths: (rows,) tokens of each row, from the longest to the shortest.
        budget: the largest number of tokens of a batch, padding included. A longer row is a batch of its own.
    """
    start = 0
    while start < len(lengths):
        stop = min(start + max(budget // int(lengths[start]), 1), len(lengths))
        yield slice(start, stop)
        start = stop


def run_batches(work: Callable[[slice], None], batches: Iterable[slice], device: torch.device) -> None:
    """Calls `work` on every batch: one after the other on an accelerator, one per thread on a processor.

    A batch that is alone has all threads.

    Threads that share one operation leave some parts of a layer to a single thread, and they wait for each other at
    the end of every operation, which costs most if other programs use the processor. Threads with a batch each do
    neither.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    listed = list(batches)
    if threads == 1 or len(listed) == 1:
        for batch in listed:
            work(batch)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, listed))
    finally:
        torch.set_num_threads(threads)


def bound_kernel_cache(device: torch.device) -> None:
    """Limits the kernels that oneDNN caches. oneDNN computes the half-precision products on a processor.

    By default, oneDNN caches the kernels of 1,024 shapes. They take hundreds of MiB if every batch has another shape.
    """
    if device.type == "cpu":
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", ONEDNN_KERNELS)
