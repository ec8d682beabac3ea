"""Record what a spec resolves to, so that a later run can be compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit._plan.versions import packages, versions

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan
    from toolkit._plugins.registry import Parts


def make_lock(plan: Plan, parts: Parts) -> dict[str, Any]:
    """Revision and digest of everything loadable, by stage; versions of parts, plugins and
    packages.
    """
    stages = {
        stage.id: {
            "part": f"{stage.part.name} {stage.part.version}",
            **{
                field: {
                    "name": loadable.identity.name,
                    "revision": loadable.identity.revision,
                    "digest": loadable.identity.digest,
                }
                for field, loadable in (("model", stage.model), ("saes", stage.saes))
                if loadable is not None
            },
            **({"files": stage.files.digest} if stage.files else {}),
        }
        for stage in plan.stages
    }
    return {
        "spec": plan.loaded.path.name,
        "stages": stages,
        "versions": versions(parts),
        "packages": packages(),
    }
