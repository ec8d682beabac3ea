"""`strict`: reads any plain statement of one option that the prompt offers, and nothing else.

The last line with the prompt's label (`Final Decision:`) decides. Without one, the reply must
declare one option: a line or sentence starts with it (`2) Stop`, `Bet $10.`, `$20`) or says in the
first person that it is chosen. If declarations differ, the last line decides where the prompt asks
for the decision at the end; otherwise the reply is ambiguous.

Ignored are the prompt's own lines when both options are quoted, conditions, questions and denials,
and numbers of something else: behind a bare number or an amount only the end, punctuation or a
known word may follow. An amount that is not offered is a failure; it is never clipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolkit.parts import Params
from toolkit.samples.games import Parser, Prompt, Reply, lines_of

from .options import (
    AMBIGUOUS,
    EMPTY,
    UNREADABLE,
    Mention,
    mention_at,
    mentions,
    numbered,
    prompt_lines,
)

_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence|ok|okay|well|sure|alright|then|finally|now|next|and|but|yes|"
    r"please),?\s+"
    r"|no,\s+)*"
    r"(?:"
    r"(?:(?:my|the)\s+)?(?:final\s+)?(?:choice|decision|answer|action|move|pick|selection|response)"
    r"(?:\s+is)?(?:\s+to)?\s*[:=-]*\s*(?:to\s+)?"
    r"|i(?:'ve|\s+have)?\s+(?:decided|chosen|opted)\s+(?:to\s+|on\s+|for\s+)?"
    r"(?:go\s+with\s+|choose\s+|pick\s+|select\s+|take\s+)?"
    r"|(?:i\s+think\s+|i\s+guess\s+|i\s+believe\s+)?"
    r"i(?:\s+will|'ll|\s+would|'d|\s+shall|\s+should|\s+must)?\s+"
    r"(?:rather\s+|just\s+|now\s+)?"
    r"(?:like\s+to\s+|prefer\s+to\s+|want\s+to\s+|decide\s+to\s+|choose\s+to\s+|go\s+with\s+|"
    r"choose\s+|pick\s+|select\s+|take\s+|place\s+|make\s+(?=a\b))?(?:to\s+)?"
    r"|i(?:'m|\s+am)\s+(?:going\s+to\s+|going\s+with\s+|choosing\s+(?:to\s+)?|gonna\s+)?"
    r"|it(?:'s|\s+is)\s+(?:best|better|wisest|wise|safest|safer|time)\s+to\s+"
    r"|to\s+(?![$0-9])|let\s+me\s+|let's\s+|going\s+with\s+|choose\s+|time\s+to\s+"
    r")?(?:option\s+)?(?=\S)(?:a\s+(?=bet|\$|[0-9]))?"
)
_STATEMENT = re.compile(
    r"\b(?:i(?:'ll|\s+will|'m\s+going\s+to|\s+am\s+going\s+to|\s+choose(?:\s+to)?|\s+pick|"
    r"\s+select|"
    r"'ve\s+decided\s+to|\s+have\s+decided\s+to|\s+decide\s+to|'m\s+going\s+with|\s+opt\s+to)"
    r"|(?:choice|decision|answer)\s+is(?:\s+to)?)\s*:?\s+(?:option\s+)?(?:a\s+)?"
)
_COMMENT = re.compile(
    r"\s*(?:is|are|was|seems?|looks?|would|could|may|might|can|has|have|gives?|means?|only|costs?|"
    r"vs\.?|versus"
    r"|last\s+(?:round|time)|earlier|previously|before)\b"
)
_ALTERNATIVE = re.compile(
    r"\s*(?:,\s*)?(?:or\b|/|and/or\b|-\s*\$?[0-9]|to\s+\$?[0-9]|\.\."
    r"|[,;.]?\s*(?:and|then)?\s*(?:\$ ?[0-9]+|[0-9]+(?=\s*(?:$|[.,;]|or\b|and\b))))"
)
_SUBJECT = re.compile(
    r"(?:to\s+[a-z]+|[a-z]+ing)\b(?:(?!because|since|\bas\b|\bso\b|\bbut\b)[^,.;:!?])*?"
    r"\b(?:is|are|was|would|could|may|might|makes?|seems?|looks?|feels?|sounds?|means?|costs?)\b"
)
_CONDITION = re.compile(r"\b(?:if|unless|whether|suppose|perhaps|maybe)\b|\?")
_LATER = re.compile(
    r"\s+(?:(?:playing|betting)\s+)?(?:when|once|until|as soon as|after|soon|later|next)\b"
)
_DOUBT = re.compile(
    r"\b(?:if|unless|whether|suppose|perhaps|maybe|might|could|should i|would have)\b|\?$"
)
_DENIAL = re.compile(
    r"(?:\b(?:not|never|no|without|cannot|instead of|rather than|avoid|before|than to|don't|won't|"
    r"can't|wouldn't|shouldn't|didn't)\b|n't\b)(?:\s+[a-z']+){0,2}\s*$"
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=\S)")
_SENTENCE_END = re.compile(r"(?<=[.!?;])(?:\s+|$)")
_REASON = re.compile(r"\b(?:because|since|so that|even if|in case)\b")
_LONE_AMOUNT = re.compile(r"(?:us)?\$? ?[0-9]{1,15}(?: ?(?:\$|dollars|usd|bucks))?\.?")
_DOT_KEY = re.compile(r"^\(?[0-9]{1,2}\.\s")


class Strict(Params):
    """No params: the prompt defines the options and the position of the decision."""


def make(params: Strict) -> Parser:
    """Make the parser."""
    return read


def read(reply: str, prompt: Prompt) -> Reply:
    """Read the decision of a reply."""
    lines = lines_of(reply)
    if not lines:
        return Reply(failure=EMPTY)
    remaining_lines = _without_quotations(lines, prompt)
    labelled_phrase = _labelled_phrase(remaining_lines, prompt)
    if labelled_phrase is not None:
        sentence = _SENTENCE_END.split(labelled_phrase, maxsplit=1)[0]
        reasons = _REASON.search(sentence)
        if _CONDITION.search(sentence[: reasons.start()] if reasons else sentence):
            return Reply(failure=UNREADABLE)
        return _phrase_verdict(labelled_phrase, prompt) or Reply(failure=UNREADABLE)
    return _declaration(remaining_lines, prompt)


def _declaration(lines: list[str], prompt: Prompt) -> Reply:
    """The one option that the lines declare."""
    declared = [
        (number, verdict)
        for number, line in enumerate(lines)
        for verdict in _declared(line, prompt)
    ]
    if not declared:
        return Reply(failure=UNREADABLE)
    last_number, last_verdict = declared[-1]
    if len({verdict for _, verdict in declared}) > 1:
        on_last_line = {verdict for number, verdict in declared if number == last_number}
        ends_with_it = prompt.decides == "end" and last_number == len(lines) - 1
        if not ends_with_it or len(on_last_line) > 1:
            return Reply(failure=AMBIGUOUS)
    if any(_names_another(line, last_verdict, prompt) for line in lines[last_number + 1 :]):
        return Reply(failure=AMBIGUOUS)
    return last_verdict


def _names_another(line: str, verdict: Reply, prompt: Prompt) -> bool:
    """Whether a line names an option other than the declared one without denying it."""
    for other in [*mentions(line, prompt), *numbered(line, prompt)]:
        differs = other.amount is not None and other.amount != verdict.amount
        denied = _DENIAL.search(line[: other.start])
        if not denied and (other.option.action != verdict.action or differs):
            return True
    return False


def _without_quotations(lines: list[str], prompt: Prompt) -> list[str]:
    """Drop lines quoted from the prompt; keep one that names an option unless the whole menu is
    quoted.
    """
    lines_of_prompt = prompt_lines(prompt.text)
    quoted = {line for line in lines if line in lines_of_prompt}
    option_lines = {line for line in quoted if mention_at(line, prompt) is not None}
    whole_menu = len(option_lines) > 1
    return [
        line for line in lines if line not in quoted or (line in option_lines and not whole_menu)
    ]


def _labelled_phrase(lines: list[str], prompt: Prompt) -> str | None:
    """The text after the last label in the lines, or the next line if that text is empty."""
    label = re.compile(rf"\b{re.escape(prompt.label.lower())}\s*(?:is\b)?\s*[:=\u2190-\u21ff-]*\s*")
    for number in range(len(lines) - 1, -1, -1):
        matches = list(label.finditer(lines[number]))
        if matches:
            rest = lines[number][matches[-1].end() :]
            phrases = [*([rest] if rest.strip(" .:") else []), *lines[number + 1 :], ""]
            if len(phrases) > 1 and _LONE_AMOUNT.fullmatch(phrases[1]):
                mention = mention_at(phrases[0], prompt)
                if mention is not None and mention.end == len(phrases[0].rstrip(" .:")):
                    return f"{phrases[0]} {phrases[1]}" if mention.amount is None else phrases[0]
            return phrases[0]
    return None


def _phrase_verdict(phrase: str, prompt: Prompt) -> Reply | None:
    """The verdict of a phrase that starts with an option, with or without a lead-in, and does not
    go on to say something about it.
    """
    if _SUBJECT.match(phrase):
        return None
    for start in dict.fromkeys((0, _lead_end(phrase))):
        mention = mention_at(phrase, prompt, start)
        if mention is not None:
            return _unqualified_verdict(phrase, mention, prompt)
    return None


def _lead_end(phrase: str) -> int:
    match = _LEAD.match(phrase)
    return match.end() if match else 0


def _declared(line: str, prompt: Prompt) -> Iterator[Reply]:
    """The verdicts that the sentences of a line declare."""
    sentences = [line] if _DOT_KEY.match(line) else _SENTENCE.split(line)
    for sentence in sentences:
        if _DOUBT.search(sentence):
            continue
        verdict = _phrase_verdict(sentence, prompt)
        if verdict is not None:
            yield verdict
            continue
        for statement in _STATEMENT.finditer(sentence):
            mention = mention_at(sentence, prompt, statement.end())
            stated_verdict = (
                _unqualified_verdict(sentence, mention, prompt) if mention is not None else None
            )
            if stated_verdict is not None:
                yield stated_verdict


def _unqualified_verdict(sentence: str, mention: Mention, prompt: Prompt) -> Reply | None:
    """The verdict of a mention, unless the sentence goes on to comment on it or to name another
    option.
    """
    rest = sentence[mention.end :]
    if _COMMENT.match(rest) or _LATER.match(rest):
        return None
    if _ALTERNATIVE.match(rest):
        return Reply(failure=AMBIGUOUS)
    others = [*mentions(rest, prompt), *numbered(rest, prompt)]
    for other in others:
        denied = _DENIAL.search(rest[: other.start])
        if other.option != mention.option and not denied:
            return Reply(failure=AMBIGUOUS)
        differs = other.amount is not None and other.amount != mention.amount
        if other.option == mention.option and differs and not denied:
            return Reply(failure=AMBIGUOUS)
    return mention.verdict()
