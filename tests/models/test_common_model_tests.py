"""The tests that every model of transformers must pass, run on our classes; its source distribution has them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.helpers.reviews import ROOT


# Modules of transformers' tests that its source distribution lacks, and what the common tests import from them.
STAND_INS = {
    "exporters/test_export.py": "class ExportTesterMixin: ...\n",
    "generation/test_utils.py": "class GenerationTesterMixin: ...\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}


@pytest.fixture
def library_tests(tmp_path: Path) -> Path:
    """The folder that holds transformers' package `tests`."""
    pytest.importorskip("parameterized")
    wanted = f"transformers=={version('transformers')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary",
           ":all:", "--dest", str(tmp_path), wanted]  # fmt: skip
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    archives = list(tmp_path.glob("transformers-*.tar.gz"))
    if not archives:
        pytest.skip(f"pip cannot download the source of {wanted}: {done.stderr.strip().splitlines()[-1:]}")
    with tarfile.open(archives[0]) as archive:
        members = [member for member in archive if "/tests/" in member.name]
        archive.extractall(tmp_path, members, filter="data")
    folder = next(tmp_path.glob("transformers-*/tests"), None)
    if folder is None:
        pytest.skip(f"the source of {wanted} holds no tests")
    (folder / "__init__.py").touch()
    for name, content in STAND_INS.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(content)
    return folder.parent


@pytest.mark.slow
def test_the_custom_classes_pass_the_librarys_own_tests(library_tests: Path) -> None:
    case = shutil.copy(ROOT / "tests" / "helpers" / "library_model_case.py", library_tests / "test_case.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{library_tests}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "-W", "ignore",
               "--rootdir", str(library_tests), str(case)]  # fmt: skip
    done = subprocess.run(
        command, cwd=library_tests, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 300
