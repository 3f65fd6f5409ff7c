"""Several processes give what one gives, started by the commands of `recipes/accelerate`."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from safetensors.torch import load_file

from bertcls_hf.config.parsing import parse_arguments
from bertcls_hf.data.stream_order import StreamPosition
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features import cache as feature_cache
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.run import main
from tests.helpers.reviews import ROOT, review, write_reviews
from tests.helpers.training_runs import assert_same_run, losses, without_dropout
from tests.helpers.warm_processes import run_ranks


FOLDER = ROOT / "recipes" / "accelerate"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
EXPECTED = {
    "cpu_ddp": ("MULTI_GPU", 1, 2),
    "ddp": ("MULTI_GPU", 1, 8),
    "deepspeed_zero2": ("DEEPSPEED", 1, 8),
    "fsdp2": ("FSDP", 1, 8),
    "multi_node": ("MULTI_GPU", 4, 32),
}


LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
# What is on the path of this process, such as a DeepSpeed that is installed elsewhere, is on that of the others.
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
}  # fmt: skip


def start(
    config: str, *options: str, processes: int = 2, script: Path = ROOT / "run_classification.py"
) -> subprocess.Popen[str]:
    """`accelerate launch` of the entry script, or of one that calls it, with a configuration's name or path."""
    launcher = [*LAUNCH, "--config_file", str(FOLDER / (config if config.endswith(".yaml") else f"{config}.yaml")),
                "--num_processes", str(processes), "--main_process_port", "0"]  # fmt: skip
    return subprocess.Popen(
        [*launcher, str(script), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=ENVIRONMENT,
    )  # fmt: skip


def launch(*options: str, processes: int = 2, config: str = "cpu_ddp") -> str:
    """What the ranks of a run print that `accelerate launch` started."""
    process = start(config, *options, processes=processes)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def fork(*options: str, processes: int = 2, prepare: Callable[[], None] | None = None) -> str:
    """What the ranks of a run print that were forked with the same environment, without the seconds of imports."""
    finished = run_ranks(list(options), processes, prepare)
    assert finished.code == 0, finished.output
    return finished.output


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert (config.distributed_type.value, config.num_machines, config.num_processes) == EXPECTED[path.stem]


def test_the_configurations_are_those_that_are_expected() -> None:
    assert {path.stem for path in CONFIGS} == set(EXPECTED)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_opens_with_its_command(path: Path) -> None:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n#\n")
    words = shlex.split(first.replace("\\\n#", "").removeprefix("# "))
    assert words[:4] == ["accelerate", "launch", "--config_file", path.relative_to(ROOT).as_posix()]
    assert "run_classification.py" in words


def test_the_slurm_script_is_a_script() -> None:
    subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], check=True)


MODES = {
    "shuffled": {"train_sampling_strategy": "random"},
    "bucketed, weighted and accumulated": {
        "class_weights": "balanced", "gradient_accumulation_steps": 2, "total": 12,
    },
    "frozen": {"freeze_backbone": True, "head_learning_rate": 0.01, "train_sampling_strategy": "random"},
    "boost": {"boost": True, "head_learning_rate": 0.01},
    "without padding": {"padding_free": True, "train_sampling_strategy": "random"},
    "lexical features": {"lexical_features": True, "train_sampling_strategy": "random"},
    "lexical features beside cached ones": {"lexical_features": True, "boost": True, "head_learning_rate": 0.01},
    "windows": {"truncation_strategy": "windows", "max_seq_length": 8, "window_pooling": "attention",
                "train_sampling_strategy": "random"},
    "cached windows": {"truncation_strategy": "windows", "max_seq_length": 8, "boost": True,
                       "head_learning_rate": 0.01},
    "adapters": {"lora_r": 2, "learning_rate": 1e-2, "train_sampling_strategy": "random"},
    "averaged weights": {"weight_averaging": "ema", "train_sampling_strategy": "random"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "mode", "processes"),
    [
        (launch, "shuffled", 2),
        *((fork, mode, 2) for mode in list(MODES)[1:]),
        *(pytest.param(fork, mode, 3, marks=pytest.mark.night) for mode in list(MODES)[:2]),
    ],
)
def test_ranks_train_as_one_process_does(
    command: Callable[..., list[str]], tmp_path: Path, run: Callable[..., str], mode: str, processes: int
) -> None:
    options = dict(MODES[mode])
    total = int(str(options.pop("total", 6)))
    # Neither a rank's share nor an epoch divides evenly; dropout draws from each rank's own generator.
    options |= {
        "train_file": write_reviews(tmp_path / "uneven.csv", 47), "do_train": True, "do_eval": True, "dropout": 0.0,
        "do_predict": True, "model_name_or_path": without_dropout(command, tmp_path),
    }  # fmt: skip
    accumulated = int(str(options.get("gradient_accumulation_steps", 1)))
    one, many = tmp_path / "one", tmp_path / "many"
    assert main(command(**options, per_device_train_batch_size=total // accumulated, output_dir=one)) == 0
    output = run(
        *command(**options, per_device_train_batch_size=total // accumulated // processes, output_dir=many),
        processes=processes,
    )
    assert_same_run(one, many)
    # Only the main process speaks.
    assert output.count("***** train metrics *****") == 1
    assert output.count("the model card is ") == 1
    card = (many / "README.md").read_text(encoding="utf-8")
    assert f"accelerate launch --num_processes {processes} run_classification.py --model_name_or_path" in card
    assert "On the test data, 17 texts: accuracy" in card


@pytest.mark.slow
def test_ranks_adapt_one_encoder(command: Callable[..., list[str]], tmp_path: Path) -> None:
    """Each rank masks the tokens of its own texts, so that the weights are not those of one process."""
    options = {"adapt_num_train_epochs": 2, "adapt_learning_rate": 5e-3, "num_train_epochs": 1, "do_train": True}
    output = fork(*command(**options, per_device_train_batch_size=4))
    found = json.loads((tmp_path / "out/adapted/adaptation.json").read_text())
    assert found["loss_after"] < found["loss_before"]
    assert output.count("adapting the encoder to 48 texts") == 1
    assert "holds the same adapted encoder" in fork(*command(**options, per_device_train_batch_size=4))


@pytest.mark.slow
def test_ranks_learn_from_few_labels_together(command: Callable[..., list[str]], tmp_path: Path) -> None:
    """Each rank takes the pairs of its own texts; all choose the same encoder, and label the same texts alike."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": review(1000 + index)[0]}) + "\n" for index in range(40)))
    options = {
        "few_shot": True, "self_training_rounds": 2, "unlabelled_file": texts, "contrastive_learning_rate": 1e-2,
        "train_file": write_reviews(tmp_path / "few.csv", 60), "per_device_train_batch_size": 8,
        **dict.fromkeys(("num_train_epochs", "learning_rate", "validation_file")),
    }  # fmt: skip
    words = [*command(**options), "--label_descriptions", "bad awful poor", "good great fine"]
    output = fork(*words)
    found = json.loads((tmp_path / "out/few_shot.json").read_text())
    assert len(found["candidates"]) == 4
    assert output.count("few shots: tuning on 30 of 60 rows, part 1 of 2") == 1
    assert json.loads((tmp_path / "out/self_training.json").read_text())["texts"] == 40
    assert json.loads((tmp_path / "out/test_results.json").read_text())["test_accuracy"] > 0.8
    assert "nothing is tuned" in fork(*words)


@pytest.mark.slow
def test_ranks_share_a_stream_and_go_on_exactly(command: Callable[..., list[str]], tmp_path: Path) -> None:
    for number in range(4):
        write_reviews(tmp_path / f"part-{number}.csv", 20 + number, start=number * 30)
    options = {"train_file": tmp_path / "part-*.csv", "streaming": True, "num_train_epochs": None, "max_steps": 16,
               "shuffle_buffer_size": 16, "per_device_train_batch_size": 3, "save_strategy": "steps", "save_steps": 8,
               "eval_strategy": "no", "save_total_limit": 5}  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fork(*command(**options, output_dir=whole))
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoint-16")
    position = StreamPosition.read(cut / "checkpoint-8")
    assert (position.steps, position.ranks) == (8, 2)
    fork(*command(**options, output_dir=cut, resume_from_checkpoint="auto"))
    first, second = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(whole) == losses(cut)


@pytest.mark.slow
def test_a_stream_is_trained_on_alike_by_any_number_of_ranks(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    for number in range(4):
        write_reviews(tmp_path / f"part-{number}.csv", 40 + number, start=number * 50)
    options = {"train_file": tmp_path / "part-*.csv", "streaming": True, "num_train_epochs": None, "max_steps": 6,
               "shuffle_buffer_size": 16, "save_strategy": "steps", "save_steps": 3, "dropout": 0.0,
               "eval_strategy": "no", "do_train": True, "do_eval": True, "do_predict": True, "save_total_limit": 5,
               "model_name_or_path": without_dropout(command, tmp_path)}  # fmt: skip
    one, two, mixed = tmp_path / "one", tmp_path / "two", tmp_path / "mixed"
    assert main(command(**options, per_device_train_batch_size=64, output_dir=one)) == 0
    output = fork(*command(**options, per_device_train_batch_size=32, output_dir=two))
    assert "read in 2 parts; a step takes 32 rows of each" in output
    assert_same_run(one, two)
    # What two processes began, one goes on with, in two batches a step.
    shutil.copytree(two, mixed)
    shutil.rmtree(mixed / "checkpoint-6")
    resumed = {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 2, "resume_from_checkpoint": "auto"}
    assert main(command(**options, **resumed, output_dir=mixed)) == 0
    assert_same_run(one, mixed)


@pytest.mark.slow
def test_ranks_share_the_features_of_a_stream(command: Callable[..., list[str]], tmp_path: Path) -> None:
    for number in range(3):
        write_reviews(tmp_path / f"part-{number}.csv", 15 + number, start=number * 30)
    options = {"train_file": tmp_path / "part-*.csv", "streaming": True, "boost": True, "head_learning_rate": 0.01,
               "learning_rate": None, "train_sampling_strategy": "random", "dropout": 0.0, "do_train": True,
               "do_eval": True, "do_predict": True}  # fmt: skip
    one, many = tmp_path / "one", tmp_path / "many"
    batch = {"per_device_train_batch_size": 6}
    assert main(command(**{**options, **batch}, output_dir=one, boost_cache_dir=tmp_path / "cache-1")) == 0
    batch = {"per_device_train_batch_size": 3}
    fork(*command(**{**options, **batch}, output_dir=many, boost_cache_dir=tmp_path / "cache-2"))
    assert_same_run(one, many)
    shards = [{path.relative_to(cache): path.read_bytes() for path in cache.rglob("*.arrow")}
              for cache in (tmp_path / "cache-1", tmp_path / "cache-2")]  # fmt: skip
    assert shards[0] == shards[1]


@pytest.mark.slow
def test_the_launcher_passes_a_signal_on_to_the_ranks(command: Callable[..., list[str]], tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = {"num_train_epochs": 25, "per_device_train_batch_size": 4, "save_strategy": "no", "eval_strategy": "no",
               "model_name_or_path": without_dropout(command, tmp_path)}  # fmt: skip
    process = start("cpu_ddp", *command(**options, output_dir=stopped))
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "'loss'" in line or '"loss"' in line:
            break
    process.send_signal(signal.SIGTERM)
    output = "".join([*lines, *process.stdout])
    assert process.wait(timeout=60) != 0
    assert "stopped by SIGTERM" in output, output
    checkpoints = [path.name for path in stopped.glob("checkpoint-*")]
    assert len(checkpoints) == 1, output

    begin = time.monotonic()
    fork(*command(**options, output_dir=stopped, resume_from_checkpoint="auto"))
    fork(*command(**options, output_dir=whole))
    assert time.monotonic() - begin < 240
    first, second = load_file(whole / "model.safetensors"), load_file(stopped / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


KILLED_SCRIPT = """
import os, signal, sys, time
from bertcls_hf.features import cache as feature_cache
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.training.trainer import ClassificationTrainer
feature_cache.SHARD_ROWS = 8
kind = FeatureExtractor if sys.argv[1] == "extraction" else ClassificationTrainer
name = "_extract_shard" if sys.argv[1] == "extraction" else "training_step"
original, calls = getattr(kind, name), []
def noted(*args, **options):
    calls.append(None)
    if os.environ["RANK"] == "1" and len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)  # so that each rank takes its share
    return original(*args, **options)
setattr(kind, name, noted)
from bertcls_hf.run import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("phase", [pytest.param("extraction", marks=pytest.mark.night), "training"])
def test_a_killed_rank_ends_the_job_and_the_next_one_goes_on(
    command: Callable[..., list[str]], tmp_path: Path, phase: str
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED_SCRIPT)
    options = {"boost": phase == "extraction", "boost_cache_dir": tmp_path / "cache", "head_learning_rate": 0.01,
               "freeze_backbone": True, "resume_from_checkpoint": "auto"}  # fmt: skip
    begin = time.monotonic()
    process = start("cpu_ddp", phase, *command(**options), script=script)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert time.monotonic() - begin < 60
    assert "Signal 9 (SIGKILL)" in output
    assert not (tmp_path / "out" / "model.safetensors").exists()
    fork(*command(**options))
    assert (tmp_path / "out" / "model.safetensors").exists()


def slow_down_extraction() -> None:
    """Makes small shards, each of which takes 2 s."""
    feature_cache.SHARD_ROWS = 8
    original = FeatureExtractor._extract_shard

    def slow(*args: Any, **options: Any) -> None:
        time.sleep(2)
        original(*args, **options)

    FeatureExtractor._extract_shard = slow  # type: ignore[method-assign]


@pytest.mark.night
def test_an_extraction_may_take_longer_than_the_time_out_of_the_process_group(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Eleven shards of 2 s for two processes that wait for each other for 9 s at most."""
    options = {"boost": True, "head_learning_rate": 0.01, "learning_rate": None, "ddp_timeout": 9}
    begin = time.monotonic()
    fork(*command(**options, boost_cache_dir=tmp_path / "cache"), prepare=slow_down_extraction)
    assert time.monotonic() - begin > 11


SILENT = "`accelerate launch` was asked for several processes and started one"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "inherited", "expected"),
    [
        (["--cpu", "--num_processes", "2"], {}, SILENT),
        # As a script for a cluster sets it, for whatever comes.
        pytest.param(
            ["--cpu", "--num_processes", "1"], {"MASTER_ADDR": "localhost"}, "no such file", marks=pytest.mark.night
        ),
    ],
)
def test_processes_that_were_not_started_are_noticed_before_the_work(
    command: Callable[..., list[str]], tmp_path: Path, asked: list[str], inherited: dict[str, str], expected: str
) -> None:
    if torch.cuda.device_count() > 1 and "--cpu" not in asked:
        pytest.skip("accelerate starts a process per GPU")
    words = command(train_file=tmp_path / "none.csv")
    done = subprocess.run(
        [*LAUNCH, *asked, str(ROOT / "run_classification.py"), *words], capture_output=True, text=True,
        env={**ENVIRONMENT, **inherited}, check=False,
    )  # fmt: skip
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert expected in error
    assert expected != SILENT or "--config_file recipes/accelerate/cpu_ddp.yaml" in error


@pytest.mark.parametrize("number", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_processes_that_were_started_are_not_missed(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--train_file", "a.csv", "--use_cpu"]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(ArgumentsError, match=SILENT):
        parse_arguments(words)
    monkeypatch.setenv(number, "1")
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("transformers.TrainingArguments.device", torch.device("cpu"))
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", 0)
    parse_arguments(words)


needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def zero_on_cpu(stage: int, folder: Path) -> str:
    """The recipe of ZeRO-2 on two processes without GPUs, at another stage."""
    config = yaml.safe_load((FOLDER / "deepspeed_zero2.yaml").read_text(encoding="utf-8"))
    config |= {"use_cpu": True, "num_processes": 2}
    config["deepspeed_config"]["zero_stage"] = stage
    path = folder / f"zero{stage}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_zero_trains_as_one_process_does(command: Callable[..., list[str]], tmp_path: Path, stage: int) -> None:
    options = {"dropout": 0.0, "model_name_or_path": without_dropout(command, tmp_path), "do_train": True,
               "do_eval": True, "do_predict": True, "train_sampling_strategy": "random"}  # fmt: skip
    one, many = tmp_path / "one", tmp_path / "many"
    assert main(command(**options, per_device_train_batch_size=6, output_dir=one)) == 0
    launch(*command(**options, per_device_train_batch_size=3, output_dir=many), config=zero_on_cpu(stage, tmp_path))
    assert_same_run(one, many)


@needs_deepspeed
@pytest.mark.slow
def test_zero_3_is_refused_in_one_sentence(command: Callable[..., list[str]], tmp_path: Path) -> None:
    process = start(zero_on_cpu(3, tmp_path), *command())
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    errors = {line for line in output.splitlines() if line.startswith("error: ")}
    assert len(errors) == 1
    assert "use zero_stage: 2, or recipes/accelerate/fsdp2.yaml" in errors.pop()
    assert not (tmp_path / "out").exists()
