"""The tests of hearth.vllm run inside vLLM's own package, or not at all: tools/vllm-test makes the
environment. Where vLLM is not there every test is skipped, and says so."""

import os
import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

try:
    import vllm  # noqa: F401

    MISSING = ""
except ImportError as error:
    MISSING = f"vllm cannot be imported here: {error}"
if not MISSING:
    try:
        import hearth  # noqa: F401
    except ImportError as error:
        MISSING = f"hearth is not installed here: {error}"

collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_collection_finish(session: pytest.Session) -> None:
    if MISSING:
        pytest.exit(f"SKIPPED: {MISSING}", returncode=0)


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
