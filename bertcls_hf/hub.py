"""Pushing a finished run to the Hub: only what a user of the model needs.

python -m bertcls_hf.hub push outputs/mine --hub_model_id me/mine    # where a run could not push its model
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi

from bertcls_hf.errors import ExitCode, PushError, one_line


# Named one by one, so that no cache, checkpoint, log, prediction or stray file is ever published.
PUSHED_FILES = (
    "README.md",
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "modeling.py",
    "recipe.yaml",
    "calibration.json",
    "*_results.json",
    "*_report.json",
)
# A star also matches slashes: checkpoints and the head of LP-FT lie in folders.
NOT_PUSHED = "*/*"


def push_folder(
    folder: Path, hub_model_id: str | None = None, private: bool | None = None, revision: str | None = None
) -> str:
    """Uploads the model in a folder, creating the repository where needed.

    Args:
        folder: output_dir of a finished run.
        hub_model_id: name of the repository; the folder's name by default.
        private: of a new repository; true by default.
        revision: branch.

    Returns:
        The address of the commit.

    Raises:
        PushError: the Hub refused or could not be reached. The folder is whole, and pushing again finishes the job.
    """
    name = hub_model_id or folder.absolute().name
    api = HfApi()
    try:
        repo_id = api.create_repo(name, private=private is not False, exist_ok=True).repo_id
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            allow_patterns=list(PUSHED_FILES),
            ignore_patterns=NOT_PUSHED,
            revision=revision,
            commit_message="Trained classifier",
        )
    except Exception as error:  # the client raises its HTTP library's own kinds too, and none may lose a finished run
        raise PushError(
            f"pushing to {name} failed: {one_line(error)}. The model is whole in {folder}; push it later "
            f"with `python -m bertcls_hf.hub push {folder} --hub_model_id {name}`"
        ) from error
    return str(commit.commit_url)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bertcls_hf.hub", description="Pushes a finished run to the Hub.")
    parser.add_argument("command", choices=["push"])
    parser.add_argument("folder", type=Path, help="output_dir of the run")
    parser.add_argument("--hub_model_id", help="name of the repository; the folder's name by default")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    args = parser.parse_args(argv)
    if not (args.folder / "config.json").is_file():
        parser.error(f"{args.folder} holds no trained model (no config.json)")
    try:
        sys.stdout.write(push_folder(args.folder, args.hub_model_id, private=not args.public) + "\n")
    except PushError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.PUSH_FAILED
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
