"""The tests of hearth.vllm run inside vLLM's own package: tools/vllm-test makes the environment.
Where vLLM cannot be imported they are skipped, and say so."""

import os
import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


@pytest.fixture
def store_path(request: pytest.FixtureRequest):
    """A directory on a real disk, since stores are opened for direct I/O."""
    base = Path(os.environ.get("HEARTH_TEST_DIR", "/var/tmp")) / f"hearth-vllm-{os.getpid()}"
    path = base / "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)
    try:
        base.rmdir()
    except OSError:
        pass
