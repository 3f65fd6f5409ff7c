"""Classify sentences with a model that run_classification.py has trained.

Example:
    python examples/classify_sentences.py outputs/quickstart "Profits rose by a third."
"""

import argparse
import json
from pathlib import Path

from transformers import pipeline


# In the style of the BBC news articles that recipes/quickstart.yaml learns from.
DEFAULT_SENTENCES = (
    "Shares in the airline fell 8% after it warned that rising fuel costs would cut its annual profits.",
    "The striker scored twice in the second half to send his side through to the FA Cup semi-final.",
    "The firm's new mobile phones let users browse the web and download music over a broadband network.",
)


def parse_arguments() -> argparse.Namespace:
    """Read the command line and check that it names a folder with a model in it."""
    parser = argparse.ArgumentParser(description="Classify sentences with a trained model.")
    parser.add_argument(
        "output_dir",
        nargs="?",
        type=Path,
        default=Path("outputs/quickstart"),
        help="folder that run_classification.py wrote its model to (default: %(default)s)",
    )
    parser.add_argument("sentences", nargs="*", help="what to classify (default: three sentences of news)")
    arguments = parser.parse_args()
    if not (arguments.output_dir / "config.json").is_file():
        parser.error(f"no model in {arguments.output_dir} (config.json is missing); `make quickstart` trains one")
    return arguments


def main() -> None:
    """Print every sentence with its labels, the most probable first."""
    arguments = parse_arguments()
    config = json.loads((arguments.output_dir / "config.json").read_text(encoding="utf-8"))
    classifier = pipeline(
        "text-classification",
        model=str(arguments.output_dir),
        top_k=None,
        # A model with code of its own (auto_map) loads only if that code may run. Here it may: the folder
        # comes from your own training run. Do not copy this line for folders that somebody else made.
        trust_remote_code="auto_map" in config,
    )
    sentences = arguments.sentences or list(DEFAULT_SENTENCES)
    for sentence, scores in zip(sentences, classifier(sentences, truncation=True), strict=True):
        print(f"\n{sentence}")
        width = max(len(score["label"]) for score in scores)
        for score in sorted(scores, key=lambda score: -score["score"]):
            print(f"  {score['label']:<{width}}  {score['score']:7.2%}")


if __name__ == "__main__":
    main()
