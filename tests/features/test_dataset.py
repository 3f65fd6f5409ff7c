"""Cached features as a training set: the same batches from memory and from disk."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig

from bertcls_hf.features import dataset as feature_dataset
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.models.modeling import TextClassifierConfig, TruncationSettings, merge_parts
from tests.helpers.feature_runs import all_features


class TestFeatureDataset:
    def datasets(self, rows: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[FeatureDataset]:
        """The same features in memory and memory-mapped: two layers of cls and mean, in shards of 7."""
        config = TextClassifierConfig(
            encoder_config=BertConfig(hidden_size=3), pooling="cls_mean", pooling_layers=2, **options
        )
        generator = np.random.default_rng(0)
        values = generator.normal(size=(4, rows, 3)).astype(np.float16)
        parts = [[component[start : start + 7] for start in range(0, rows, 7)] for component in values]
        positions = generator.integers(0, rows, 2 * rows)
        labels = torch.arange(2 * rows)
        made = []
        for limit in (2**30, 0):
            monkeypatch.setattr(feature_dataset, "IN_MEMORY_BYTES", limit)
            made.append(FeatureDataset(parts, positions, labels, config))
        merged = merge_parts([torch.from_numpy(component).float() for component in values], config)
        for dataset in made:
            torch.testing.assert_close(all_features(dataset), merged[positions], rtol=0, atol=1e-6)
        return made

    @pytest.mark.parametrize("merge", ["concat", "mean", "weighted"])
    def test_memory_and_disk_give_the_same_batches(self, monkeypatch: pytest.MonkeyPatch, merge: str) -> None:
        in_memory, mapped = self.datasets(30, monkeypatch, pooling_layers_merge=merge)
        assert len(in_memory) == len(mapped) == 60
        for rows in ([5], [3, 3, 59, 0], list(range(60)), np.array([7, 2])):
            batches = [dataset.__getitems__(rows) for dataset in (in_memory, mapped)]
            assert torch.equal(batches[0]["features"], batches[1]["features"])
            assert batches[0]["labels"].tolist() == batches[1]["labels"].tolist() == list(rows)
            assert batches[0]["features"].dtype == torch.float32
        assert torch.equal(in_memory[4]["features"], mapped[4]["features"])
        assert in_memory[4]["features"].shape == (in_memory.config.feature_size,)

    @pytest.mark.parametrize("merge", ["concat", "mean"])
    def test_all_rows_in_the_order_of_the_cache(self, monkeypatch: pytest.MonkeyPatch, merge: str) -> None:
        for dataset in self.datasets(30, monkeypatch, pooling_layers_merge=merge):
            self.check_chunks(dataset)
            self.check_chunks(dataset.select(np.arange(3, 50, 2)))

    def test_all_windows_in_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feature_dataset, "CHUNK_TEXTS", 4)
        config = TextClassifierConfig(
            encoder_config=BertConfig(hidden_size=3),
            pooling="mean",
            truncation=TruncationSettings("windows", 10, 50, 3, 3, window_pooling="max")._asdict(),
        )
        values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        windows = np.array([1, 3, 2, 5, 1, 1, 7, 2])
        self.check_chunks(FeatureDataset([[values]], np.arange(22) % 20, None, config, windows=windows))

    def check_chunks(self, dataset: FeatureDataset) -> None:
        seen = np.full((len(dataset), dataset.config.feature_size), np.nan, dtype=np.float32)
        for rows, values in dataset.in_chunks():
            assert np.isnan(seen[rows]).all()
            seen[rows] = values
        np.testing.assert_array_equal(seen, all_features(dataset).numpy())

    def test_a_batch_costs_no_python_per_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for dataset in self.datasets(30, monkeypatch):
            # Rows of every shard in both batches.
            counts = [self.calls(dataset, list(range(rows))) for rows in (30, 60)]
            assert counts[0] == counts[1] < 150

    def calls(self, dataset: FeatureDataset, rows: list[int]) -> int:
        count = 0

        def profile(*args: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(profile)
        dataset.__getitems__(rows)
        sys.setprofile(None)
        return count

    def test_the_trainer_reads_whole_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset = self.datasets(30, monkeypatch)[0]
        loader = torch.utils.data.DataLoader(dataset, batch_size=25, collate_fn=lambda batch: batch)
        assert [len(batch["labels"]) for batch in loader] == [25, 25, 10]
