"""The real LMCache drives the adapters in all of these tests. Where it or Hearth cannot be
imported, every one is skipped, with the reason."""

import os

import pytest

os.environ.setdefault("LMCACHE_DISABLE_BANNER", "1")
os.environ.setdefault("LMCACHE_TRACK_USAGE", "false")

MISSING = ""
try:
    import hearth  # noqa: F401
    import lmcache.lmcache_native  # noqa: F401
    import lmcache.v1.distributed.l2_adapters  # noqa: F401
except Exception as error:  # a wheel built for another machine fails in many ways
    MISSING = f"{type(error).__name__}: {error}"
    collect_ignore_glob = ["test_*.py"]


if MISSING:
    class _Skipped(pytest.Item):
        def runtest(self):
            pytest.skip(f"LMCache or Hearth cannot be imported: {MISSING}")

    class _File(pytest.File):
        def collect(self):
            yield _Skipped.from_parent(self, name="lmcache")

    def pytest_collect_file(parent, file_path):
        if file_path.name == "lmcache_support.py":
            return _File.from_parent(parent, path=file_path)
        return None

else:
    from lmcache_support import Machine

    @pytest.fixture
    def machine(tmp_path):
        """L1 memory, and adapters over stores in this test's own folder; all closed at its end."""
        made = Machine(tmp_path)
        yield made
        made.close()
