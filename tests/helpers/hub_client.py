"""A process that talks to the Hub of `hub_server`."""

import os
from pathlib import Path

from huggingface_hub import constants

from tests.helpers.hub_server import TOKEN


def talk_to(endpoint: str, folder: Path) -> None:
    """Makes this process work in a folder, and use another hub than the one of its first import."""
    os.chdir(folder)
    os.environ["HF_TOKEN"] = TOKEN
    constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = endpoint, False, True
