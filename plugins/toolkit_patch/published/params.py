"""The params of `patch.published`."""

from __future__ import annotations

from pydantic import Field

from toolkit.parts import Params


class Published(Params):
    """The two prompts, the outcomes, and how many replies each condition has."""

    context: str = Field(
        "context", description="Key of the prompts' metadata that says which context one is."
    )
    safe: str = Field("safe", description="Its value for the prompt in which stopping is watched.")
    risky: str = Field(
        "risky", description="Its value for the prompt in which the proxy is watched."
    )
    stop: str = Field("stop", description="The outcome that a safe feature raises.")
    proxy: str = Field("bet", description="The outcome that stands for ruin.")
    trials: int = Field(30, ge=2, description="Replies drawn for each condition.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Limit of p, which is not corrected.")
    min_delta: float = Field(
        0.1, ge=0, le=1, description="Smaller differences of shares do not count."
    )
