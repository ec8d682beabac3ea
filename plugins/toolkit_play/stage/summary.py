"""The summary of a play stage for the report's Methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TOTALS = (
    "games",
    "replies",
    "prompt_tokens",
    "reused_tokens",
    "generated_tokens",
    "close_draws",
)


def summary(facts: Sequence[Mapping[str, Any]]) -> str:
    """Sentences on replies, shared prefixes, close draws and stopped conditions."""
    played = [fact for fact in facts if fact["name"] == "played"]
    total = {name: sum(int(fact[name]) for fact in played) for name in TOTALS}
    if not total["replies"]:
        return "No reply was requested."
    shared = total["reused_tokens"] / max(total["prompt_tokens"], 1)
    sentences = [
        f"{total['games']:,} games, {total['replies']:,} replies of "
        f"{total['generated_tokens'] / total['replies']:.1f} tokens on average.",
        f"{shared:.1%} of the prompts' {total['prompt_tokens']:,} tokens were read once and "
        "shared.",
        f"{total['close_draws']:,} of {total['generated_tokens']:,} drawn tokens lie so close to "
        "another that a different order of computation could have chosen it.",
    ]
    stopped = sorted({name for fact in played for name in fact["stopped"]})
    if stopped:
        sentences.append(f"Stopped because too few replies could be read: {', '.join(stopped)}.")
    return " ".join(sentences)
