"""Plain PyTorch hooks on a model's blocks, which tests compare the toolkit's edits with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def changed_input(module: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the first input of a module inside the block."""

    def hook(_module: Any, args: Any) -> Any:
        return (change(args[0]), *args[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def changed_output(module: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the output of a module inside the block, of a tuple its first element."""

    def hook(_module: Any, _args: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
