"""The raw stream of final tokens as an extraction kept it (table `streams`): read one hookpoint at
a time, without the model. Needs NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from toolkit.errors import DataError, choices
from toolkit.models.streams import Text
from toolkit.saes import raw_space_row
from toolkit.work import Work
from toolkit_stats.samples.layers import KEPT, Layers, hookpoints

if TYPE_CHECKING:
    import pyarrow as pa

Floats32 = npt.NDArray[np.float32]


class StoredStreams:
    """Table `streams` of a step, for the requested layers. `hookpoints` has their names, `width`
    the length of a row.
    """

    def __init__(self, work: Work) -> None:
        if work.identity is None:
            raise DataError(
                "the raw stream is read from a table, and the step does not say of which model: "
                "name `model` in the spec."
            )
        self.identity, facts = work.identity, work.identity.facts
        self._rows = work.inputs.read("streams")
        if not self._rows.num_rows:
            raise DataError(
                "table 'streams' has no rows: the extraction's `stream` selects no token. Set "
                "`stream: last`."
            )
        stored = (
            self._rows.select(["hookpoint"])
            .group_by("hookpoint")
            .aggregate([])["hookpoint"]
            .to_pylist()
        )
        self._stored = sorted(
            stored,
            key=lambda hookpoint: (hookpoint.rpartition(".")[0], int(hookpoint.rpartition(".")[2])),
        )
        self.hookpoints = self._chosen(work.params.layers, facts.get("layers"))
        self.width = len(self._rows["values"][0].as_py())

    def _chosen(self, requested: Layers, layers: int | None) -> list[str]:
        """The streams after the requested layers; one that was not kept is an error."""
        stored = [hookpoint for hookpoint in self._stored if hookpoint.startswith("resid_post.")]
        if requested == KEPT:
            return stored or hookpoints(KEPT, 0, self.identity.name)
        if layers is None:
            raise DataError(
                f"layers: how many layers {self.identity.name} has is not known without loading "
                f"it. Write `layers: {KEPT}`."
            )
        requested_hookpoints = hookpoints(requested, int(layers), self.identity.name)
        lacking = [hookpoint for hookpoint in requested_hookpoints if hookpoint not in stored]
        if lacking:
            raise DataError(
                f"layers: {requested!r} asks for {lacking[0]}, and the extraction that this stage "
                f"needs kept the stream at {choices(self._stored)} only, where its SAEs read. Name "
                f"these layers (`layers: {KEPT}` is all of them), or leave out `stream` in the "
                "extraction: then the model is run."
            )
        return requested_hookpoints

    def rows(self, hookpoint: str, texts: Sequence[Text]) -> Floats32:
        """(texts, width): the stream at each text's last token."""
        import pyarrow.compute as pc

        space = raw_space_row(self.identity, hookpoint, self.width)["space"]
        rows_of_space = self._rows.filter(pc.equal(self._rows["space"], space))
        last = {text.samples[0]: len(text.ids) - 1 for text in texts}
        rows_of_space, names = _at(rows_of_space, last)
        index = {name: number for number, name in enumerate(names)}
        lacking = next((name for name in last if name not in index), None)
        if lacking is not None:
            raise DataError(
                f"sample '{lacking}': its stream at {hookpoint} is not kept at its last token "
                f"(position {last[lacking]}). This stage reads last tokens: extract with `stream: "
                "last`, from the same samples and with the same model."
            )
        rows = (
            rows_of_space["values"]
            .combine_chunks()
            .flatten()
            .to_numpy(zero_copy_only=False)
            .reshape(-1, self.width)
        )
        return np.asarray(rows[[index[text.samples[0]] for text in texts]], dtype=np.float32)


def _at(rows: pa.Table, last: dict[str, int]) -> tuple[pa.Table, list[str]]:
    """The rows of each sample's position, and their samples."""
    import pyarrow as pa
    import pyarrow.compute as pc

    indices = pc.index_in(rows["sample"], value_set=pa.array(list(last), pa.string()))
    positions = pa.array(list(last.values()), pa.int32()).take(indices.combine_chunks())
    last_rows = rows.filter(pc.fill_null(pc.equal(rows["position"], positions), False))
    return last_rows, last_rows["sample"].to_pylist()
