"""A prompt as the model sees it, and where a reply to it is complete."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toolkit.games import Prompt, decided
from toolkit.models import Model, Span, Tokens
from toolkit.sessions import CompleteLine, Until


@dataclass(frozen=True)
class SeenPrompt:
    """A prompt with its tokens; `spans` count the characters of `tokens.text`."""

    prompt: Prompt
    tokens: Tokens
    spans: tuple[Span, ...]


def see(model: Model, prompt: Prompt, name: str, *, chat: bool) -> SeenPrompt:
    """Tokenise a prompt, in the model's chat template if asked for."""
    tokens = model.tokenise(prompt.text, chat=chat, spans=prompt.spans, name=name)
    shift = model.encode(prompt.text, chat=True).shift if chat else 0
    whole = tokens.text.startswith(prompt.text, shift)
    # A chat template may trim the prompt's end: what it cut off belongs to no span.
    end = shift + len(prompt.text if whole else prompt.text.rstrip())
    spans = []
    for span, first, last in prompt.spans:
        start, stop = first + shift, min(last + shift, end)
        if start < stop:
            spans.append((span, start, stop))
    return SeenPrompt(prompt, tokens, tuple(spans))


def reminded(prompt: Prompt, reminder: str) -> Prompt:
    """The prompt with a reminder: before its last line where a reply goes on from that line, at its
    end where the reply ends with the decision.
    """
    if prompt.decides == "end":
        return replace(prompt, text=f"{prompt.text}\n\n{reminder}")
    start = prompt.text.rfind("\n") + 1
    added = f"{reminder}\n"
    spans = tuple(
        (name, first + len(added), last + len(added)) if first >= start else (name, first, last)
        for name, first, last in prompt.spans
    )
    return replace(prompt, text=prompt.text[:start] + added + prompt.text[start:], spans=spans)


def stop_rule(prompt: Prompt, *, chat: bool) -> Until:
    """What ends a reply before the model ends it: the deciding line is complete. In a chat a reply
    may open with anything, so that only the line with the label ends it.
    """
    if prompt.decides == "end":
        return CompleteLine(lambda text: bool(decided(text, prompt)))
    return None if chat else "\n"
