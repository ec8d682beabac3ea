"""The last build step inside an image: compile, write the bill of materials, check torch.

Runs with the image's own interpreter. EXPECTED_CUDA (a build argument, as a file in the context)
is the CUDA version that torch must be built for; `none` means a CPU build.
"""

import compileall
import importlib.metadata
import json
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

CONTEXT = Path(__file__).parent
PREFIX = Path(sys.prefix)


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


def check_torch(expected):
    """Refuse an image whose torch is built for another CUDA than the pinned one."""
    import torch

    built_for = torch.version.cuda or "none"
    if built_for != expected:
        sys.exit(f"torch {torch.__version__} is built for CUDA {built_for}, not for {expected}")


check_torch((CONTEXT / "expected_cuda").read_text().strip())
write_bill_of_materials()
compileall.compile_dir(PREFIX, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
