"""Batches of about as many tokens each, and how they are run: one after the other, or a thread to each."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch


# Small batches keep a layer's activations in the processor's cache; larger ones fill an accelerator.
TOKENS_PER_BATCH = {"cpu": 2048}
TOKENS_PER_ACCELERATOR_BATCH = 32_768
# As many as the layers of one batch need; read by oneDNN when a process first uses it.
ONEDNN_KERNELS = "32"


def token_budget(device: torch.device) -> int:
    """Tokens of a batch that suit the device, padding included."""
    return TOKENS_PER_BATCH.get(device.type, TOKENS_PER_ACCELERATOR_BATCH)


def token_budget_batches(lengths: np.ndarray, budget: int) -> Iterator[slice]:
    """Consecutive rows, longest first, whose padded size stays within the budget; a longer row comes alone."""
    start = 0
    while start < len(lengths):
        stop = min(start + max(budget // int(lengths[start]), 1), len(lengths))
        yield slice(start, stop)
        start = stop


def run_batches(work: Callable[[slice], None], batches: Iterable[slice], device: torch.device) -> None:
    """Calls `work` on every batch: one after the other on an accelerator, one per thread on a processor.

    A thread to each batch leaves no part of a layer to one thread alone, as do threads that share one operation; nor
    do they wait for each other at the end of every operation, which costs most where other programs run.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        for batch in batches:
            work(batch)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, batches))
    finally:
        torch.set_num_threads(threads)


def bound_kernel_cache(device: torch.device) -> None:
    """Keeps oneDNN, which multiplies in half precision on a processor, from holding the kernels of 1,024 shapes.

    They are hundreds of MiB where every batch has a shape of its own.
    """
    if device.type == "cpu":
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", ONEDNN_KERNELS)
