"""Hashes of content, which tell one model from another whatever their paths."""

import hashlib
import json

import torch
import xxhash
from transformers import PreTrainedTokenizerBase


def weights_fingerprint(weights: dict[str, torch.Tensor]) -> str:
    """A hash of names, types, shapes and bytes; the bytes go through xxh3, which is ten times as fast as SHA-256."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        line = f"{name} {tensor.dtype} {tuple(tensor.shape)} {xxhash.xxh3_128_hexdigest(content)}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the tokenizer's content; calls leave traces in its truncation and padding, which are left out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    content = {name: value for name, value in content.items() if name not in {"truncation", "padding"}}
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps([content, special], sort_keys=True).encode()).hexdigest()
