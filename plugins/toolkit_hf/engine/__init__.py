"""A decoder run block by block with its own modules: captures, edits, kept prompts, sessions,
attention and gradients. Nothing here changes the weights or leaves a hook behind.
"""

from .model import CausalModel

__all__ = ["CausalModel"]
