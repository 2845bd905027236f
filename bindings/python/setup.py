"""Builds hearth._hearth against libhearth, and puts libhearth.so.1 beside it.

The library is that of HEARTH_PREFIX, where it is set, and otherwise the one that pkg-config finds.
HEARTH_CFLAGS and HEARTH_LDFLAGS are added, for sanitizers.
"""

import glob
import os
import shlex
import shutil
import subprocess

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBRARY = "libhearth.so.1"


def ask(*what):
    try:
        return subprocess.run(
            ["pkg-config", *what, "hearth"], check=True, text=True, stdout=subprocess.PIPE,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            "setup.py: libhearth was not found. Install it (make install PREFIX=...), then set "
            "HEARTH_PREFIX to that prefix, or PKG_CONFIG_PATH so that pkg-config finds hearth."
        ) from None


def folders():
    prefix = os.environ.get("HEARTH_PREFIX")
    if prefix:
        include, library = os.path.join(prefix, "include"), os.path.join(prefix, "lib")
    else:
        include, library = ask("--variable=includedir"), ask("--variable=libdir")
    for path in (os.path.join(include, "hearth.h"), os.path.join(library, LIBRARY)):
        if not os.path.isfile(path):
            raise SystemExit(f"setup.py: there is no {path}: is libhearth installed there?")
    return include, library


class Build(build_ext):
    """Finds the library only when something is built, so that metadata can be had without it."""

    def build_extension(self, extension):
        include, library = folders()
        extension.include_dirs.append(include)
        extension.library_dirs.append(library)
        super().build_extension(extension)
        folder = os.path.dirname(self.get_ext_fullpath(extension.name))
        shutil.copyfile(os.path.join(library, LIBRARY), os.path.join(folder, LIBRARY))


setup(
    cmdclass={"build_ext": Build},
    ext_modules=[
        Extension(
            "hearth._hearth",
            sorted(glob.glob("src/*.c")),
            depends=["src/binding.h"],
            extra_compile_args=[
                "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-missing-field-initializers",
                "-Wno-cast-function-type", "-fvisibility=hidden",
                *shlex.split(os.environ.get("HEARTH_CFLAGS", "")),
            ],
            # Found beside the extension, wherever the package lies.
            extra_link_args=[
                "-l:" + LIBRARY, "-Wl,-rpath,$ORIGIN",
                *shlex.split(os.environ.get("HEARTH_LDFLAGS", "")),
            ],
        )
    ],
)
