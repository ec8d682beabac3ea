"""A prompt as the model sees it, and the rule that completes a reply to it."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.models import Model, Span, Tokens
from toolkit.models.sessions import CompleteLine, Until
from toolkit.samples.games import Prompt, decided


@dataclass(frozen=True)
class SeenPrompt:
    """A prompt with its tokens; `spans` count the characters of `tokens.text`."""

    prompt: Prompt
    tokens: Tokens
    spans: tuple[Span, ...]


def tokenise_prompt(model: Model, prompt: Prompt, name: str, *, chat: bool) -> SeenPrompt:
    """Tokenise a prompt, inside the model's chat template if `chat`."""
    tokens = model.tokenise(prompt.text, chat=chat, spans=prompt.spans, name=name)
    shift = model.encode(prompt.text, chat=True).shift if chat else 0
    is_untrimmed = tokens.text.startswith(prompt.text, shift)
    # A chat template may trim the prompt's end: what it cut off belongs to no span.
    end = shift + len(prompt.text if is_untrimmed else prompt.text.rstrip())
    spans = []
    for span, begin, finish in prompt.spans:
        start, stop = begin + shift, min(finish + shift, end)
        if start < stop:
            spans.append((span, start, stop))
    return SeenPrompt(prompt, tokens, tuple(spans))


def stop_rule(prompt: Prompt, *, chat: bool) -> Until:
    """The rule that ends a reply before the model does: its deciding line is complete. In a chat a
    reply may open with any text, so its first line ends nothing.
    """
    if prompt.decides == "end":
        return CompleteLine(lambda text: bool(decided(text, prompt)))
    return None if chat else "\n"
