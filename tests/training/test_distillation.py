"""Runs with --teacher: what is learned from the teachers, texts without labels, the cache, and refusals."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from bertcls_hf.run.distil import main as distil
from bertcls_hf.training.distillation import distillation_loss
from bertcls_hf.training.saved_outputs import read_outputs
from tests.helpers.long_texts import texts_of
from tests.helpers.reviews import write_reviews


Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def taught(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that has learned the words of good and bad reviews; its labels are in another order."""
    folder = tmp_path_factory.mktemp("taught")
    options = {
        "model_name_or_path": tiny_bert, "train_file": write_reviews(folder / "teaching.csv", 96, start=300),
        "validation_file": write_reviews(folder / "validation.csv", 16, start=100), "num_train_epochs": 12,
        "learning_rate": 5e-3, "output_dir": folder / "teacher", "label_names": "pos,neg", "lexical_baseline": False,
        "per_device_train_batch_size": 8, "disable_tqdm": True, "use_cpu": True, "eval_strategy": "no",
        "save_strategy": "no",
    }  # fmt: skip
    assert main([token for name, value in options.items() for token in (f"--{name}", str(value))]) == 0
    return folder / "teacher"


@pytest.fixture
def teacher(taught: Path, tmp_path: Path) -> Path:
    """A copy of that classifier, which a test may change."""
    return shutil.copytree(taught, tmp_path / "teacher")


@pytest.fixture
def mislabelled(reviews: dict[str, Path], tmp_path: Path) -> Path:
    """The training reviews, all with the wrong label."""
    rows = texts_of(reviews["train"])
    with (tmp_path / "mislabelled.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([[row["text"], {"neg": "pos", "pos": "neg"}[row["label"]]] for row in rows])
    return tmp_path / "mislabelled.csv"


MODES: dict[str, dict[str, Any]] = {
    "fine-tuned": {},
    "boost": {"boost": True, "learning_rate": None, "head_learning_rate": 0.02, "num_train_epochs": 20},
    "LP-FT": {"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1},
    "accumulated": {"gradient_accumulation_steps": 2},
    "windows": {"truncation_strategy": "windows", "max_seq_length": 16, "pooling": "mean"},
    "adapters": {"lora_r": 4, "learning_rate": 2e-2},
    "averaged": {"weight_averaging": "swa"},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_student_follows_its_teacher(
    command: Command, teacher: Path, mislabelled: Path, tmp_path: Path, mode: str
) -> None:
    options = {
        "train_file": mislabelled, "teacher": teacher, "distillation_weight": 1, "num_train_epochs": 12,
        "learning_rate": 5e-3, "lexical_baseline": False,
    }  # fmt: skip
    assert main(command(**{**options, **MODES[mode]})) == 0
    # By its labels, it would have learned the opposite.
    assert json.loads((tmp_path / "out/test_results.json").read_text())["test_accuracy"] > 0.6
    card = (tmp_path / "out/README.md").read_text()
    assert "weight 1 in the loss, temperature 2 (Hinton et al. 2015)" in card
    assert str(tmp_path) not in card


def test_without_weight_on_the_labels_these_do_not_matter(
    command: Command, teacher: Path, mislabelled: Path, tmp_path: Path
) -> None:
    options = {"teacher": teacher, "distillation_weight": 1, "num_train_epochs": 1, "eval_strategy": "no",
               "lexical_baseline": False}  # fmt: skip
    outs = tmp_path / "right", tmp_path / "wrong"
    assert main(command(**options, output_dir=outs[0])) == 0
    assert main(command(**options, output_dir=outs[1], train_file=mislabelled)) == 0
    logits = [read_outputs(out / "test_outputs.npz").logits for out in outs]
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_logits_are_computed_once(
    command: Command, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"train_file": write_reviews(tmp_path / "others.csv", 31, start=700), "num_train_epochs": 1}
    for number in range(2):
        caplog.clear()
        assert main(command(**options, teacher=teacher, output_dir=tmp_path / str(number))) == 0
        assert ("computing the logits of 31 texts" in caplog.text) == (number == 0)


class TestUnlabelledTexts:
    @pytest.fixture
    def more(self, reviews: dict[str, Path], tmp_path: Path) -> Path:
        """Five new texts, an empty one, and one of the test split."""
        texts = [row["text"] for row in texts_of(write_reviews(tmp_path / "new.csv", 5, start=900))]
        texts += ["", texts_of(reviews["test"])[0]["text"]]
        path = tmp_path / "more.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return path

    def test_they_take_the_teachers_answers(
        self, command: Command, teacher: Path, more: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert main(command(teacher=teacher, unlabelled_file=more, num_train_epochs=1)) == 0
        assert "2 of 7 texts are left out: empty, or also in validation or test" in caplog.text
        assert "5 texts without labels take their teachers' answers" in caplog.text
        assert json.loads((tmp_path / "out/train_results.json").read_text())["train_samples"] == 53

    def test_the_encoder_reads_them_too(self, command: Command, teacher: Path, more: Path, tmp_path: Path) -> None:
        options = {"adapt_num_train_epochs": 1, "num_train_epochs": 1}
        assert main(command(teacher=teacher, unlabelled_file=more, **options)) == 0
        assert json.loads((tmp_path / "out/adapted/adaptation.json").read_text())["texts"] == 53

    def test_nothing_is_left(
        self, command: Command, teacher: Path, reviews: dict[str, Path], capsys: pytest.CaptureFixture
    ) -> None:
        assert main(command(teacher=teacher, unlabelled_file=reviews["test"])) == 65
        assert "no text is left that is not empty, and not in validation or test" in capsys.readouterr().err


def test_several_teachers_are_a_mean(command: Command, teacher: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert main(command(num_train_epochs=1, seed=7, output_dir=other)) == 0
    out = tmp_path / "mean"
    options = {"num_train_epochs": 1, "eval_strategy": "no", "distillation_weight": 1, "lexical_baseline": False}
    assert main(command(**options, teacher=f"{teacher},{other}", output_dir=out)) == 0
    both = [Predictor.from_pretrained(str(path), device="cpu") for path in (teacher, other)]
    assert [predictor.labels.names for predictor in both] == [("pos", "neg"), ("neg", "pos")]
    one = read_outputs(out / "test_outputs.npz").logits
    assert main(command(**options, teacher=teacher, output_dir=tmp_path / "alone")) == 0
    assert not np.allclose(one, read_outputs(tmp_path / "alone/test_outputs.npz").logits, atol=1e-4)


def test_the_command_names_the_teacher_first(
    command: Command, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert distil([str(teacher), *command(num_train_epochs=1)]) == 0
    assert "temperature 2" in (tmp_path / "out/README.md").read_text()
    assert distil(command()) == 2
    assert "name a trained classifier first" in capsys.readouterr().err


def test_the_losses() -> None:
    torch.manual_seed(0)
    student, teacher, loss = torch.randn(4, 3), torch.randn(4, 3), torch.tensor(2.0)
    args = ClassifierTrainingArguments(
        use_cpu=True, teacher=["x"], distillation_temperature=3.0, distillation_weight=0.25
    )
    shares, expected = (student / 3).softmax(dim=1), (teacher / 3).softmax(dim=1)
    single = 9 * (expected * (expected.log() - shares.log())).sum(dim=1).mean()
    marks = (teacher / 3).sigmoid()
    several = 9 * F.binary_cross_entropy((student / 3).sigmoid(), marks)
    for task, distance in (
        (SINGLE_LABEL, single), (MULTI_LABEL, several), (REGRESSION, ((student - teacher) ** 2).mean()),
    ):  # fmt: skip
        found = distillation_loss(loss, student, teacher, task, args)
        torch.testing.assert_close(found, 0.75 * loss + 0.25 * distance)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation_weight": 0.3}, "--distillation_weight belong to --teacher, which is not given"),
        ({"teacher": "x", "distillation_weight": 0}, "--distillation_weight 0.0: must lie in (0, 1]"),
        ({"teacher": "x", "do_eval": True}, "--teacher teaches in the epochs of a training, and there are none"),
        ({"teacher": "x", "streaming": True, "max_steps": 2}, "--teacher needs all texts before the training"),
        ({"teacher": "x", "cross_validation": 2}, "the teacher may have learned from rows that a fold holds out"),
        (
            {"unlabelled_file": "x.csv"},
            "--unlabelled_file is for --adapt_num_train_epochs, --self_training_rounds",
        ),
    ],
)
def test_refusals(command: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], message: str) -> None:
    assert main(command(**options)) == 2
    assert message in capsys.readouterr().err


def test_a_teacher_of_other_labels(
    command: Command, teacher: Path, reviews: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(reviews["train"].read_text().replace(",pos", ",good"))
    options = {"train_file": renamed, "validation_file": None, "test_file": None}
    assert main(command(**options, teacher=teacher)) == 2
    assert "it knows pos, neg (single_label_classification), and the data has good, neg" in capsys.readouterr().err
