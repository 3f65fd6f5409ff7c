"""Hashes of the content of weights and tokenizers, which identify a model independently of its path."""

import hashlib
import json
from functools import lru_cache

import torch
import xxhash
from transformers import PreTrainedTokenizerBase


def weights_fingerprint(weights: dict[str, torch.Tensor]) -> str:
    """Returns a hash of the names, dtypes, shapes and bytes of all weights.

    The bytes are hashed by xxh3, which is ten times as fast as SHA-256.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        line = f"{name} {tensor.dtype} {tuple(tensor.shape)} {xxhash.xxh3_128_hexdigest(content)}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns a hash of the tokenizer's content without its truncation and padding, since calls change these."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else json.dumps({"vocab": tokenizer.get_vocab()})
    special = tuple((name, str(value)) for name, value in tokenizer.special_tokens_map.items())
    return _content_hash(content, special)


# A run asks several times, and reading a multilingual vocabulary takes most of a second.
@lru_cache(maxsize=2)
def _content_hash(content: str, special: tuple[tuple[str, str], ...]) -> str:
    values = {name: value for name, value in json.loads(content).items() if name not in {"truncation", "padding"}}
    return hashlib.sha256(json.dumps([values, dict(special)], sort_keys=True).encode()).hexdigest()
