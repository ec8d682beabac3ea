"""A chart's SVG as PNG and as PDF, by vl-convert: one wheel, no system libraries, no browser. It is
an extra, since most readers want the SVG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

PIXELS = 2.0
"""Pixels of the PNG for each unit of the SVG: a chart 640 wide has 1,280."""
HOW_TO = (
    "PNG and PDF of each chart are written as well if vl-convert is installed: "
    "python -m pip install 'sae-toolkit[figures]'"
)


def converters() -> Mapping[str, Callable[[str], bytes]]:
    """The function for each file format that can be written here, by the format's file ending."""
    if find_spec("vl_convert") is None:
        return {}
    import vl_convert

    return {
        "png": lambda svg: bytes(vl_convert.svg_to_png(svg, scale=PIXELS)),
        "pdf": lambda svg: bytes(vl_convert.svg_to_pdf(svg)),
    }
