"""Short sentences with a trait of known cause: boldness 0-3 is the number of bold words chosen in
three slots.
"""

from itertools import product
from random import Random

NAMES = ("Mina", "Jun", "Tara", "Leo", "Sora", "Ben", "Ada", "Noah")
CALM = (
    ("quietly", "slowly", "gently", "carefully"),
    ("waits", "watches", "rests", "listens"),
    ("at home", "with a plan", "near the door", "for a while"),
)
BOLD = (
    ("boldly", "loudly", "wildly", "fiercely"),
    ("jumps", "charges", "gambles", "dares"),
    ("without a net", "for everything", "against the odds", "into the storm"),
)
LABEL = "\nBoldness: "


def all_sentences() -> list[tuple[str, int]]:
    """Return every sentence of the language with its boldness, in a fixed order."""
    slots = [
        [(word, 0) for word in calm] + [(word, 1) for word in bold]
        for calm, bold in zip(CALM, BOLD, strict=True)
    ]
    return [
        (f"{name} {' '.join(word for word, _ in words)}.", sum(bold for _, bold in words))
        for name, words in product(NAMES, product(*slots))
    ]


def split() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return (seen in training, held out): a fixed shuffle, one sentence in five held out."""
    shuffled = all_sentences()
    Random(0).shuffle(shuffled)
    return shuffled[len(shuffled) // 5 :], shuffled[: len(shuffled) // 5]


def labelled_rows(per_level: int) -> list[tuple[str, int]]:
    """Return held-out sentences, the same number of each level: the rows of
    specs/data/lab_trait.csv.
    """
    _, held_out = split()
    rows = [[row for row in held_out if row[1] == level][:per_level] for level in range(4)]
    return [row for group in zip(*rows, strict=True) for row in group]
