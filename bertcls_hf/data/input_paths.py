"""Local paths that the user named."""

import glob
from pathlib import Path

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.errors import DataError


def check_files(args: DataArguments) -> None:
    """Looks whether the files that the options name are there; the first thing that a run does.

    Raises:
        DataError: one is not.
    """
    for path_name in filter(None, (args.validation_file, args.test_file)):
        existing_path(path_name)
    if args.train_file and args.streaming and "://" not in args.train_file:
        matching_files(args.train_file)
    elif args.train_file and not args.streaming:
        existing_path(args.train_file)


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


def matching_files(name: str) -> list[Path]:
    """The file of this name, the files in the folder of this name, or those that match the pattern, sorted.

    Raises:
        DataError: there are none, or they are of several formats.
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
