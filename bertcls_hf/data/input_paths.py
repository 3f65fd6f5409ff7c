"""Checks and expands the local paths in the options."""

import glob
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.errors import DataError


# The suffixes of compressed files; the suffix before it names the format.
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz")


def check_files(args: DataArguments) -> None:
    """Checks that the files in the options exist. A run does this first, so that a wrong name fails at once.

    Raises:
        DataError: a file does not exist.
    """
    for path_name in filter(None, (args.validation_file, args.test_file, args.unlabelled_file)):
        existing_path(path_name)
    if args.train_file and args.streaming and "://" not in args.train_file:
        matching_files(args.train_file, args)
    elif args.train_file and not args.streaming:
        existing_path(args.train_file)


def existing_path(name: str) -> Path:
    """Returns the path of an existing file or folder, with `~` expanded.

    Raises:
        DataError: the file or folder does not exist, or is neither.
    """
    path = _expanded(name)
    if not path.exists():
        hint = "; download the URL and give the local path" if "://" in name else ""
        raise DataError(f"{name}: no such file or folder{hint}")
    if not path.is_file() and not path.is_dir():
        raise DataError(f"{name}: a pipe or a device, and a run reads its data more than once: write it to a file")
    return path


def _expanded(name: str) -> Path:
    """Returns a path with `~` expanded.

    Raises:
        DataError: there is no such user.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise DataError(f"{name}: no such user") from error


def format_suffix(path: Path, args: DataArguments) -> str:
    """Returns the suffix that says how to read a file, such as `.csv` for `reviews.CSV.gz`.

    `--file_format` is used instead of the name if it is given. A zip archive has the format of its only file.

    Raises:
        DataError: a zip archive is broken, or holds no file or several.
    """
    if args.file_format is not None:
        return f".{args.file_format}"
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return Path(zip_member(path)).suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED_SUFFIXES else suffix


def zip_member(path: Path) -> str:
    """Returns the name of the only file in a zip archive, apart from those that macOS adds.

    Raises:
        DataError: the archive is broken, or holds no file or several.
    """
    try:
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
    except (BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a whole zip archive: {error}") from error
    if len(names) != 1:
        listed = f": {', '.join(sorted(names)[:5])}" if names else ""
        raise DataError(f"{path}: holds {len(names)} files{listed}; unpack it, and name the file to read")
    return names[0]


def matching_files(name: str, args: DataArguments) -> list[Path]:
    """Lists the files that a name stands for, sorted. Files whose name starts with . or _ are left out.

    Args:
        name: a file, a folder of files, or a glob pattern.
        args: the data options, which can name the format.

    Raises:
        DataError: no file matches, or the files have several suffixes.
    """
    path = _expanded(name)
    candidates = [path] if path.is_file() else path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path)))
    paths = sorted(path for path in candidates if path.is_file() and not path.name.startswith((".", "_")))
    if not paths:
        raise DataError(f"{name}: no file, no folder of files and no pattern that files match")
    suffixes = sorted({format_suffix(path, args) for path in paths})
    if len(suffixes) > 1:
        raise DataError(f"{name}: files of several formats, {', '.join(suffixes)}: name one, as in '*{suffixes[0]}'")
    return paths
