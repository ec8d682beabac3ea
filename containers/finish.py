"""The last build step inside an image: compile, write the bill of materials, check torch, and list
the files that belong to the toolkit itself.

Runs with the image's own interpreter. EXPECTED_CUDA (a build argument, as a file in the context)
is the CUDA version that torch must be built for; `none` means a CPU build.
"""

import compileall
import importlib.metadata
import importlib.util
import json
import os
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

CONTEXT = Path(__file__).parent
PREFIX = Path(sys.prefix)
OWN_FILES = "own-files.txt"


def components():
    """Every installed distribution, by name, in CycloneDX's form."""
    found = {}
    for distribution in importlib.metadata.distributions(path=[str(site_packages())]):
        name, version = distribution.metadata["Name"], distribution.version
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        found[purl] = {"type": "library", "name": name, "version": version, "purl": purl}
    return [found[purl] for purl in sorted(found)]


def site_packages():
    """The folder that distributions are installed in."""
    return next((PREFIX / "lib").glob("python3.*/site-packages"))


def write_bill_of_materials():
    """A CycloneDX file without a date, so that equal contents give equal bytes."""
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": components(),
    }
    (PREFIX / "sbom.cdx.json").write_text(json.dumps(bill, indent=1) + "\n")


def own_files():
    """The files of the wheels in the context's `own` folder, with their bytecode, and what this
    step writes. Everything else in the image is the same for every version of the toolkit.
    """
    names = {wheel.name.split("-")[0] for wheel in (CONTEXT / "own").glob("*.whl")}
    files = {PREFIX / "sbom.cdx.json", PREFIX / OWN_FILES}
    for name in names:
        for file in importlib.metadata.distribution(name).files:
            path = Path(os.path.normpath(file.locate()))
            files.add(path)
            if path.suffix == ".py":
                files.add(Path(importlib.util.cache_from_source(str(path))))
    return sorted(str(path).lstrip("/") for path in files)


def check_torch(expected):
    """Refuse an image whose torch is built for another CUDA than the pinned one."""
    import torch

    built_for = torch.version.cuda or "none"
    if built_for != expected:
        sys.exit(f"torch {torch.__version__} is built for CUDA {built_for}, not for {expected}")


check_torch((CONTEXT / "expected_cuda").read_text().strip())
write_bill_of_materials()
compileall.compile_dir(PREFIX, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
(PREFIX / OWN_FILES).write_text("\n".join(own_files()) + "\n")
