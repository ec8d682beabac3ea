"""Which GPU a worker gets. `--gpu 5` means the fifth physical card of the machine, whatever
CUDA_VISIBLE_DEVICES says.

An existing CUDA_VISIBLE_DEVICES is a wish of the person or scheduler that set it: a card outside it
is refused, and both numbers, physical and visible, are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import BadInput


def pick(gpu: str | None, environ: Mapping[str, str], workers: int) -> list[dict[str, Any]]:
    """One entry a worker: `worker` name, `physical` and `visible` index (or None), `cuda` for
    CUDA_VISIBLE_DEVICES.
    """
    allowed = _allowed(environ)
    if gpu is None or gpu == "none":
        return [
            _entry(number, None, None, "" if gpu == "none" else environ.get("CUDA_VISIBLE_DEVICES"))
            for number in range(workers)
        ]
    chosen = _numbers(gpu)
    return [
        _entry(number, card, _visible(card, allowed, environ), str(card))
        for number, card in enumerate(chosen)
    ]


def _numbers(gpu: str) -> list[int]:
    try:
        chosen = [int(text) for text in gpu.split(",")]
    except ValueError:
        raise BadInput(
            f"--gpu {gpu}: write physical indices, such as `--gpu 5` or `--gpu 2,5`, or `--gpu "
            "none`."
        ) from None
    if len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise BadInput(f"--gpu {gpu}: each index once, counted from 0.")
    return chosen


def _allowed(environ: Mapping[str, str]) -> list[str] | None:
    text = environ.get("CUDA_VISIBLE_DEVICES")
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _visible(card: int, allowed: list[str] | None, environ: Mapping[str, str]) -> int:
    if allowed is None:
        return card
    if str(card) not in allowed:
        raise BadInput(
            f"--gpu {card}: CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']!r} allows only "
            f"{', '.join(allowed) or 'no GPU'}. --gpu counts physical cards. Choose one of those, "
            "or unset CUDA_VISIBLE_DEVICES."
        )
    return allowed.index(str(card))


def _entry(
    number: int, physical: int | None, visible: int | None, cuda: str | None
) -> dict[str, Any]:
    return {"worker": f"worker-{number}", "physical": physical, "visible": visible, "cuda": cuda}
