"""How long the words of all features of a layer take, and the tokens that they promote.

    python benchmarks/words.py           32,768 features, as many as a layer of Llama Scope has
    python benchmarks/words.py --tiny    the same code, small: its figures say nothing

Replies and activations are random; the join, the tests and the product are those of the stages
`words.replies` and `words.tokens`. The vocabulary and the width of the product are the lab's, or
those that --width and --vocabulary say.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse

from toolkit.statistics.corrections import benjamini_hochberg
from toolkit_words.promoted import TILE_NUMBERS
from toolkit_words.replies.levels import cuts, high
from toolkit_words.replies.log_odds import count, exact_tails, two_sided
from toolkit_words.replies.pairs import BLOCK_PAIRS, SCREEN
from toolkit_words.replies.tf_idf import published

ALPHA = 0.05


def main() -> None:
    """Print a line for each piece of work."""
    args = arguments()
    rng = np.random.default_rng(0)
    samples, features = (400, 512) if args.tiny else (args.samples, args.features)
    words, width, vocabulary = (
        (60, 32, 300) if args.tiny else (args.words, args.width, args.vocabulary)
    )
    fired = sparse.random_array(
        (samples, features), density=args.l0 / features, rng=rng, format="csr", dtype=float
    )
    counts = sparse.random_array((samples, words), density=0.05, rng=rng, format="csr")
    counts.data[:] = 1
    print(f"{samples:,} replies, {features:,} features, {words:,} words, {args.rounds} rounds")
    timed(
        "every pair of feature and word, tested and corrected", lambda: pairs(fired, counts), args
    )
    timed("TF-IDF as published", lambda: published(fired, counts.astype(np.int64)), args)
    rows = torch.randn(features, width)
    matrix = torch.randn(vocabulary, width)
    print(f"product of {features:,} rows with {vocabulary:,} tokens of width {width:,}")
    timed("tokens at either end", lambda: promoted(rows, matrix), args)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="small: figures say nothing")
    parser.add_argument("--samples", type=int, default=6400)
    parser.add_argument("--features", type=int, default=32_768)
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--l0", type=int, default=50)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def timed(name: str, work: Callable[[], object], args: argparse.Namespace) -> None:
    """The median of the rounds."""
    took = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    print(f"  {name:60s} {np.median(took):8.3f} s")


def pairs(fired: sparse.csr_array, counts: sparse.csr_array) -> int:
    """What `words.replies` does with the select half."""
    present = (counts > 0).astype(np.int32)
    columns = high(fired, cuts(fired)).tocsc()
    block = max(1, BLOCK_PAIRS // present.shape[1])
    found = []
    for start in range(0, columns.shape[1], block):
        counted = count(columns[:, start : start + block], present)
        feature, word = np.nonzero(np.abs(counted.score()) >= SCREEN)
        margins = (counted.both[feature, word], counted.high[feature], counted.words[word])
        p = two_sided(*exact_tails(*margins, counted.clusters))
        found.append(p[p <= ALPHA])
    q = benjamini_hochberg(np.concatenate(found), columns.shape[1] * present.shape[1])
    return int((q <= ALPHA).sum())


def promoted(rows: torch.Tensor, matrix: torch.Tensor) -> list[torch.Tensor]:
    """What `words.tokens` does behind the final norm."""
    tile = max(1, TILE_NUMBERS // len(matrix))
    found = []
    for start in range(0, len(rows), tile):
        values = rows[start : start + tile] @ matrix.T
        values -= values.mean(1, keepdim=True)
        found += [values.topk(10, largest=end).indices for end in (True, False)]
    return found


if __name__ == "__main__":
    main()
