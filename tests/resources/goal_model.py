"""A scratch plugin: a player that states its own goal where the prompt asks for one, raises it once
it is reached, and plays on; where the prompt does not ask, it states none.
"""

import re

from toolkit import hookimpl
from toolkit.identity import Identity
from toolkit.models import Encoded, Model
from toolkit.models.sessions import Generated, Session
from toolkit.parts import ModelPart

IDENTITY = Identity(name="goals", revision="1", digest="goals-1")
ROUNDS = 4


class Player(Model):
    """A character is a token."""

    identity = IDENTITY
    layers, width, context = 1, 4, 5000

    def encode(self, text, *, chat=False):
        offsets = tuple((index, index + 1) for index in range(len(text)))
        return Encoded(text, tuple(map(ord, text)), offsets)

    def decode(self, ids):
        return "".join(map(chr, ids))

    def run(self, batch, capture, edits=()):
        raise NotImplementedError

    def unembed(self, states):
        raise NotImplementedError

    def session(self, budget=None):
        return Talk(self, budget)


class Talk(Session):
    def run(self):
        while self._waiting:
            request = self._waiting.popleft()
            text = reply(self.model.decode(request.ids))
            yield Generated(tuple(map(ord, text)), text, "stop", 0, request.id)


def reply(prompt):
    balance = int(re.findall(r"[Bb]alance: \$(\d+)", prompt)[-1])
    played = len(re.findall(r"Round \d+:", prompt))
    decision = "Stop" if played >= ROUNDS else "Bet $10"
    if "target" not in prompt:
        return f"Final Decision: {decision}"
    goal = 110 if balance < 110 else 200
    return f"My target amount is ${goal}.\nFinal Decision: {decision}"


@hookimpl
def toolkit_parts():
    yield ModelPart(
        name="goals",
        help="States goals.",
        identify=lambda params: IDENTITY,
        load=lambda params, report: Player(),
    )
