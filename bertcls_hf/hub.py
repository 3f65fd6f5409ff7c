"""Pushing a finished run to the Hub: only what a user of the model needs."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from bertcls_hf.arguments import ClassifierTrainingArguments
from bertcls_hf.errors import PushError


# Named one by one, so that no cache, checkpoint, log, prediction or stray file is ever published.
PUSHED_FILES = ("README.md", "config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
                "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
                "*.model", "modeling.py", "recipe.yaml", "*_results.json", "*_report.json")  # fmt: skip


def push_folder(folder: Path, args: ClassifierTrainingArguments) -> str:
    """Uploads the model in a folder, creating the repository where needed; returns its address.

    Raises:
        PushError: the Hub refused or could not be reached. The folder is whole, and pushing again finishes the job.
    """
    name = args.hub_model_id or Path(args.output_dir).absolute().name
    api = HfApi()
    try:
        repo_id = api.create_repo(name, private=args.hub_private_repo is not False, exist_ok=True).repo_id
        commit = api.upload_folder(folder_path=folder, repo_id=repo_id, allow_patterns=list(PUSHED_FILES),
                                   revision=args.hub_revision, commit_message="Trained classifier")  # fmt: skip
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise PushError(
            f"pushing to {name} failed: {error}. The model is whole in {folder}; push it later with "
            f"`hf upload {name} {folder}`"
        ) from error
    return str(commit.commit_url)
