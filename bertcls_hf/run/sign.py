"""The command `bertcls sign`: a finished run's signature, in the format of OpenSSF Model Signing.

It needs the package model-signing, and so does `bertcls verify --public_key`, which checks the signature. Whoever has
no bertcls_hf checks it with `model_signing verify key --ignore_unsigned_files`.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bertcls_hf.config.command import run_command
from bertcls_hf.errors import ArgumentsError, DataError, one_line
from bertcls_hf.manifests import MANIFEST_FILE, SIGNATURE_FILE, checked_manifest


PROGRAM = "python -m bertcls_hf.run.sign"
PASSWORD_VARIABLE = "BERTCLS_KEY_PASSWORD"
PACKAGES = {"model_signing": "model-signing", "OpenSSL": "pyopenssl"}


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    return run_command(lambda words: _run_words(words, program), argv)


def _run_words(words: Sequence[str], program: str) -> None:
    parser = argparse.ArgumentParser(prog=program, description="Signs the files that a finished run's manifest lists.")
    parser.add_argument("folder", type=Path, help="output_dir of the run")
    parser.add_argument(
        "--private_key",
        type=Path,
        required=True,
        metavar="PEM",
        help="file of a key of the curve secp256r1, secp384r1 or secp521r1; the password of an encrypted one is read "
        f"from {PASSWORD_VARIABLE}",
    )
    args = parser.parse_args(words)
    sys.stdout.write(f"{sign(args.folder, args.private_key)}\n")


def sign(folder: Path, private_key: Path) -> str:
    """Signs a finished run: writes `model.sig` into its folder, for the manifest and all files that it lists.

    Args:
        folder: output_dir.
        private_key: PEM file of an elliptic key.

    Returns:
        A sentence about what was signed.

    Raises:
        ArgumentsError: the folder has no manifest, the key cannot be read, or a package is missing.
        DataError: a file is not as the run left it.
    """
    _require_packages("signing")
    from model_signing import hashing, signing

    signed = {*checked_manifest(folder)["files"], MANIFEST_FILE}
    tops = {name.partition("/")[0] for name in signed}
    unsigned = [Path(path.name) for path in folder.iterdir() if path.name not in tops]
    files = hashing.Config().set_ignored_paths(paths=unsigned)
    password = os.environ.get(PASSWORD_VARIABLE)
    try:
        config = signing.Config().use_elliptic_key_signer(
            private_key=private_key, password=password.encode() if password else None
        )
    except (OSError, ValueError, TypeError) as error:
        advice = f"; {PASSWORD_VARIABLE} holds its password" if isinstance(error, TypeError) else ""
        raise ArgumentsError(f"--private_key {private_key}: {one_line(error)}{advice}") from error
    config.set_hashing_config(files).sign(folder, folder / SIGNATURE_FILE)
    return f"{folder / SIGNATURE_FILE} signs {len(signed)} files"


def check_signature(folder: Path, public_key: Path) -> None:
    """Checks that a finished run has this key's signature of its files.

    Args:
        folder: output_dir.
        public_key: PEM file of the signer's public key.

    Raises:
        ArgumentsError: there is no signature, the key cannot be read, or a package is missing.
        DataError: the signature is of other files, or of another key.
    """
    _require_packages("checking a signature")
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    signature = folder / SIGNATURE_FILE
    if not signature.is_file():
        raise ArgumentsError(f"{folder} has no {SIGNATURE_FILE}: bertcls sign writes one")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError) as error:
        raise ArgumentsError(f"--public_key {public_key}: {one_line(error)}") from error
    try:
        config.set_ignore_unsigned_files(True).verify(folder, signature)
    except (InvalidSignature, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{signature} is not this key's signature of these files: {one_line(error)}") from error


def _require_packages(purpose: str) -> None:
    missing = [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ArgumentsError(f"{purpose} needs more packages: pip install -c constraints.txt {' '.join(missing)}")


if __name__ == "__main__":
    raise SystemExit(main())
