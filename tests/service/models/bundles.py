"""Bundles for the tests of models: copies of the tiny one under other names, versions and languages."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from bundle import manifest as manifests


def renamed(bundle: Path, folder: Path, **changes: object) -> Path:
    """Copy ``bundle`` to ``folder`` in one move, with other values in its manifest, and return the folder."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.copytree(bundle, partial)
    manifests.write(partial, replace(manifests.read(partial), **changes))  # type: ignore[arg-type]
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    return folder


def resealed(folder: Path) -> Path:
    """Write the digests of the files as they are now into the manifest of ``folder``, and return it."""
    manifests.write(folder, replace(manifests.read(folder), files=manifests.file_digests(folder)))
    return folder
