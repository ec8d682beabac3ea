"""Contract checks of a loaded model or SAE, for the tests of loaders and adapters.

    def test_contract(tmp_path):
        check_loaded(PART, params={"path": str(tiny(tmp_path))})

`toolkit.testing.loaded_models.check_model` and `toolkit.testing.loaded_saes.check_sae` check a
loaded one, for example in a notebook. Use a small one: three blocks show a mistake as well as
thirty. A violation raises `Broken` with a message that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.models import Model
from toolkit.parts import ModelPart, Part, SaePart
from toolkit.saes import Sae
from toolkit.testing.contracts import check_params
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded_models import LOADED_TEXTS, check_model
from toolkit.testing.loaded_saes import check_sae
from toolkit.testing.promises import near as _near
from toolkit.testing.promises import require as _require

if TYPE_CHECKING:
    from torch import Tensor


def check_loaded(
    part: Part,
    *,
    params: Mapping[str, Any] | None = None,
    texts: Sequence[str] = LOADED_TEXTS,
    tolerance: float = 1e-4,
) -> None:
    """Load a model or SAE part and check the result, as `check_model` and `check_sae` do. Other
    kinds load nothing.
    """
    if not isinstance(part, ModelPart | SaePart):
        return
    params_loaded = check_params(part, params or {})
    loaded = part.load(params_loaded, SilentReporter())
    if isinstance(part, ModelPart):
        _require(
            part,
            isinstance(loaded, Model),
            f"load returned {type(loaded).__name__} instead of a toolkit.models.Model",
        )
        _require(
            part,
            loaded.identity == part.identify(params_loaded),
            "the identity of the loaded model differs from that of identify",
        )
        check_model(loaded, texts, tolerance=tolerance)
        return
    saes = isinstance(loaded, Sequence) and loaded and all(isinstance(sae, Sae) for sae in loaded)
    _require(
        part,
        saes,
        f"load returned {type(loaded).__name__}; expected a list of at least one toolkit.saes.Sae",
    )
    for sae in loaded:
        check_sae(sae, tolerance=tolerance)
        if part.decoder is not None:
            _check_decoder(part, params_loaded, sae, tolerance)


def _check_decoder(part: SaePart, params: Any, sae: Sae, tolerance: float) -> None:
    """Check that `decoder` reads the loaded SAE's decoder: the same files and width, each row in
    the same direction.
    """
    import torch

    assert part.decoder is not None
    decoder = part.decoder(params, sae.name)
    read_facts = (decoder.digest, decoder.width)
    _require(
        part,
        read_facts == (sae.digest, sae.width),
        f"decoder returned the digest and width {read_facts}; the loaded SAE has "
        f"{(sae.digest, sae.width)}",
    )
    first, last = sae.width // 2, sae.width
    read = torch.from_numpy(decoder.rows(first, last))
    expected = sae.decoder_rows(range(first, last)).cpu()
    fits = read.shape == expected.shape and _near(
        _directions(read), _directions(expected), tolerance
    )
    _require(
        part,
        fits,
        f"the rows of {sae.name} that decoder returned point in other directions than the loaded "
        "SAE's",
    )


def _directions(rows: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    return normalize(rows, dim=1)
