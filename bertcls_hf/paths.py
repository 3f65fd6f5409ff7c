"""Local paths that the user named."""

from pathlib import Path

from bertcls_hf.errors import DataError


def existing_path(name: str) -> Path:
    """The file or folder of this name.

    Raises:
        DataError: there is none.
    """
    path = Path(name).expanduser()
    if not path.exists():
        hint = "; download the URL and give the local path" if "://" in name else ""
        raise DataError(f"{name}: no such file or folder{hint}")
    return path
