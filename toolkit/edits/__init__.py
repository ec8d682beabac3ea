"""Edits of a model's streams. An edit is an operation at a hookpoint on chosen tokens, not a value.

    Edit("resid_post.12", OnStream(Add(vector)), from_position(0))          every token of every row
    Edit("attn_z.3", OnStream(Set(0.0), columns=(0, 64)), tokens([2], [9])) one head, one token
    Edit("resid_post.8", OnFeatures.of(sae, [2059], Scale(0.0)), ranges([0], [5], [9]))

Operations see float32 copies of the chosen tokens, whatever the model computes in, and return new
ones, so no shared tensor is ever changed in place. Edits at one hookpoint are made in the order in
which they are given, and an edit at a later hookpoint sees the stream that earlier ones left. Each
edit keeps a tally of how often it was made, by row and by phase (prompt or generation).

The values of an operation are either shared by all targets (a vector of the stream's width, one
number per feature) or have one more dimension in front: one entry for each target.

A model plugin makes edits with `Editing`: `stream = editing.apply("resid_post.3", stream)`.
"""

from toolkit.edits.changes import ABLATE, Add, Change, Clamp, Scale, Set
from toolkit.edits.edit import Edit, Phase, Tally, set_stream
from toolkit.edits.editing import Chosen, Editing, PassRows, check_made, check_targets, choose
from toolkit.edits.operations import OnDirections, OnFeatures, OnSae, OnStream, Operation, Steer
from toolkit.edits.targets import OPEN_END, Targets, from_position, ranges, tokens

__all__ = [
    "ABLATE",
    "OPEN_END",
    "Add",
    "Change",
    "Chosen",
    "Clamp",
    "Edit",
    "Editing",
    "OnDirections",
    "OnFeatures",
    "OnSae",
    "OnStream",
    "Operation",
    "PassRows",
    "Phase",
    "Scale",
    "Set",
    "Steer",
    "Tally",
    "Targets",
    "check_made",
    "check_targets",
    "choose",
    "from_position",
    "ranges",
    "set_stream",
    "tokens",
]
