"""Checks and expands the local paths in the options."""

import glob
from pathlib import Path

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.errors import DataError


def check_files(args: DataArguments) -> None:
    """Checks that the files in the options exist. A run does this first, so that a wrong name fails at once.

    Raises:
        DataError: a file does not exist.
    """
    for path_name in filter(None, (args.validation_file, args.test_file)):
        existing_path(path_name)
    if args.train_file and args.streaming and "://" not in args.train_file:
        matching_files(args.train_file)
    elif args.train_file and not args.streaming:
        existing_path(args.train_file)


def existing_path(name: str) -> Path:
    """Returns the path of an existing file or folder, with `~` expanded.

    Raises:
        DataError: the file or folder does not exist.
    """
    path = Path(name).expanduser()
    if not path.exists():
        hint = "; download the URL and give the local path" if "://" in name else ""
        raise DataError(f"{name}: no such file or folder{hint}")
    return path


def matching_files(name: str) -> list[Path]:
    """Lists the files that a name stands for, sorted. Files whose name starts with . or _ are left out.

    Args:
        name: a file, a folder of files, or a glob pattern.

    Raises:
        DataError: no file matches, or the files have several suffixes.
    """
    path = Path(name).expanduser()
    candidates = [path] if path.is_file() else path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path)))
    paths = sorted(path for path in candidates if path.is_file() and not path.name.startswith((".", "_")))
    if not paths:
        raise DataError(f"{name}: no file, no folder of files and no pattern that files match")
    suffixes = sorted({path.suffix.lower() for path in paths})
    if len(suffixes) > 1:
        raise DataError(f"{name}: files of several formats, {', '.join(suffixes)}: name one, as in '*{suffixes[0]}'")
    return paths
