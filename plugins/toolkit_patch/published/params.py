"""The params of `patch.published`."""

from __future__ import annotations

from pydantic import Field

from toolkit.parts import Params


class Published(Params):
    """The two prompts, the outcomes, and how many replies each condition has."""

    context: str = Field("context", description="The metadata key that holds a prompt's context.")
    safe: str = Field("safe", description="The value of the prompt in which stopping is measured.")
    risky: str = Field(
        "risky", description="The value of the prompt in which the proxy is measured."
    )
    stop: str = Field("stop", description="The outcome that a safe feature raises.")
    proxy: str = Field("bet", description="The outcome that is a proxy for ruin.")
    trials: int = Field(30, ge=2, description="Number of replies drawn for each condition.")
    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Largest p-value, without correction, that counts as significant.",
    )
    min_delta: float = Field(
        0.1, ge=0, le=1, description="Smallest difference of shares that counts."
    )
