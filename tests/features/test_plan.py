"""Which rows are computed, in what order, and the digest of their tokens."""

import random
from pathlib import Path

import pytest
from datasets import Dataset, List, Value

from bertcls_hf.features import plan as planning
from bertcls_hf.features.plan import plan_extraction
from tests.helpers.feature_runs import texts_of, tokenized


class TestPlan:
    def test_it_covers_every_row_once_from_long_to_short(self) -> None:
        ids = [[5, 6], [7], [5, 6], [8, 9, 10], [6, 5], [7], [8, 9, 10]]
        plan = plan_extraction(Dataset.from_dict({"input_ids": ids}))
        assert plan.lengths.tolist() == [3, 2, 2, 1]
        assert [ids[plan.rows[position]] for position in plan.positions] == ids
        # Of equal texts, the first row is read.
        assert set(plan.rows.tolist()) == {0, 1, 3, 4}

    def test_rows_of_selections_and_of_many_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = [list(range(5, 6 + row % 7)) for row in range(50)]
        split = Dataset.from_dict({"input_ids": ids})
        chosen = random.Random(0).sample(range(50), 23)
        whole = plan_extraction(split.select(chosen))
        monkeypatch.setattr(planning, "READ_ROWS", 3)
        parts = plan_extraction(Dataset.from_dict({"input_ids": [ids[row] for row in chosen]}))
        assert whole.digest == parts.digest
        assert whole.positions.tolist() == parts.positions.tolist()


class TestDigest:
    def test_numbers_of_another_width_are_the_same_tokens(self, tiny_bert: Path) -> None:
        split = tokenized(tiny_bert, texts_of(5))
        narrow = split.cast_column("input_ids", List(Value("int32"))).cast_column(
            "token_type_ids", List(Value("int8"))
        )
        assert plan_extraction(split).digest == plan_extraction(narrow).digest

    def test_the_order_and_the_kind_of_tokens_count(self) -> None:
        digests = {
            plan_extraction(Dataset.from_dict({"input_ids": [ids], "token_type_ids": [types]})).digest
            for ids, types in (([1, 2], [0, 1]), ([2, 1], [0, 1]), ([1, 2], [1, 0]), ([0, 1], [1, 2]))
        }
        assert len(digests) == 4
        assert plan_extraction(Dataset.from_dict({"input_ids": [[1, 2]]})).digest not in digests
        # Rows are told from each other: 1|2 3 is not 1 2|3.
        first, second = (
            plan_extraction(Dataset.from_dict({"input_ids": ids})) for ids in ([[1], [2, 3]], [[1, 2], [3]])
        )
        assert first.digest != second.digest
