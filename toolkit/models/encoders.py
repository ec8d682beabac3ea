"""Models that read a text from both sides (BERT and similar models). Extraction and comparison work
with them as with decoders; there is no next token, so everything that needs one is refused by name.

A loader writes `encode`, `decode` and `run`. Attention of an encoder sees padding, so `run` has to
mask it: the contract test compares each text alone with the same text in a batch.
"""

from __future__ import annotations

from typing import Any, NoReturn

from toolkit.errors import BadInput
from toolkit.models import Model


class Encoder(Model):
    """A model whose tokens also see later tokens."""

    causal = False

    def unembed(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("unembed")

    def prefix(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: the streams of earlier tokens depend on later ones."""
        raise self._no_next_token("prefix")

    def suffix(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("suffix")

    def edited_states(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("edited_states")

    def readout(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("readout")

    def session(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("session")

    def next_logits(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("next_logits")

    def generate(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("generate")

    def score(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        raise self._no_next_token("score")

    def _no_next_token(self, method: str) -> BadInput:
        return BadInput(
            f"{method}: {self.identity.name} is an encoder, which reads a text from both sides and "
            "predicts no next token. Extraction and comparison work with it; playing, patching and "
            "scoring need a decoder."
        )
