"""A prompt as the model sees it, and the rule that completes a reply to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


def with_reminder(prompt: Prompt, reminder: str) -> Prompt:
    """The prompt with a reminder: before its last line if the reply continues that line, at its end
    if the reply ends with the decision.
    """
    if prompt.decides == "end":
        return replace(prompt, text=f"{prompt.text}\n\n{reminder}")
    last_line_start = prompt.text.rfind("\n") + 1
    added = f"{reminder}\n"
    spans = tuple(
        (name, begin + len(added), end + len(added))
        if begin >= last_line_start
        else (name, begin, end)
        for name, begin, end in prompt.spans
    )
    return replace(
        prompt,
        text=prompt.text[:last_line_start] + added + prompt.text[last_line_start:],
        spans=spans,
    )


def stop_rule(prompt: Prompt, *, chat: bool) -> Until:
    """The rule that ends a reply before the model does: its deciding line is complete. In a chat a
    reply may open with any text, so its first line ends nothing.
    """
    if prompt.decides == "end":
        return CompleteLine(lambda text: bool(decided(text, prompt)))
    return None if chat else "\n"
