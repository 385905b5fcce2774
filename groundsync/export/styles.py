"""QGIS styles (QML) that travel inside the GeoPackage."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr
from zlib import crc32

COLOURS = {"iron_oxide": "#b5451b", "bleached_quartz": "#d9a21b", "dark_disturbed": "#6b4c9a"}
OTHERS = ("#2c7fb8", "#4d9221", "#c51b7d", "#7f6000", "#35978f", "#8c6bb1")
INK = "35,30,28,255"


def style_of(layer: str, classes: Sequence[str]) -> str:
    """Returns the QML of one of the exported layers.

    Args:
        layer: The layer's name.
        classes: Class names, sorted; each gets its colour.
    """
    if layer == "targets":
        symbols = [_marker(i, _rgba(name), "4.2") for i, name in enumerate(classes)]
        return _qml("Point", _categories(classes, symbols), _labels("rank"))
    if layer == "detections":
        symbols = [_marker(i, _rgba(name), "1.4", "cross2") for i, name in enumerate(classes)]
        return _qml("Point", _categories(classes, symbols))
    if layer == "ellipses":
        return _qml("Polygon", _single(_fill("181,69,27,30", "181,69,27,255", "0.4", "solid")))
    if layer == "gaps":
        return _qml("Polygon", _single(_fill("215,48,39,60", "215,48,39,255", "0.4", "dense5")))
    return _qml("Polygon", _single(_fill("44,127,184,40", "44,127,184,160", "0.2", "solid")))


def colour_of(class_name: str) -> str:
    """Returns a class's colour, the same on every map, as ``#rrggbb``."""
    return COLOURS.get(class_name) or OTHERS[crc32(class_name.encode()) % len(OTHERS)]


def _rgba(class_name: str) -> str:
    code = colour_of(class_name)
    return ",".join(str(int(code[k : k + 2], 16)) for k in (1, 3, 5)) + ",255"


def _qml(kind: str, renderer: str, extra: str = "") -> str:
    geometry = {"Point": 0, "Polygon": 2}[kind]
    categories = "Symbology|Labeling" if extra else "Symbology"
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="3.22.0" styleCategories="{categories}" '
        f'labelsEnabled="{int(bool(extra))}">\n{renderer}{extra}'
        f"<layerGeometryType>{geometry}</layerGeometryType>\n</qgis>\n"
    )


def _single(symbol: str) -> str:
    return (
        '<renderer-v2 type="singleSymbol" symbollevels="0" enableorderby="0" forceraster="0">\n'
        f"<symbols>\n{symbol}</symbols>\n</renderer-v2>\n"
    )


def _categories(classes: Sequence[str], symbols: Sequence[str]) -> str:
    rows = "".join(
        f'<category symbol="{i}" value={quoteattr(name)} '
        f'label={quoteattr(name.replace("_", " "))} render="true"/>\n'
        for i, name in enumerate(classes)
    )
    return (
        '<renderer-v2 type="categorizedSymbol" attr="class_name" symbollevels="0" '
        'enableorderby="0" forceraster="0">\n'
        f"<categories>\n{rows}</categories>\n<symbols>\n{''.join(symbols)}</symbols>\n"
        "</renderer-v2>\n"
    )


def _marker(number: int, colour: str, size_mm: str, shape: str = "circle") -> str:
    options = {
        "name": shape,
        "color": colour,
        "outline_color": INK,
        "outline_style": "solid",
        "outline_width": "0.3",
        "size": size_mm,
        "size_unit": "MM",
    }
    return _symbol("marker", number, "SimpleMarker", options)


def _fill(colour: str, outline: str, width_mm: str, style: str) -> str:
    options = {
        "color": colour,
        "outline_color": outline,
        "outline_style": "solid",
        "outline_width": width_mm,
        "style": style,
    }
    return _symbol("fill", 0, "SimpleFill", options)


def _symbol(kind: str, number: int, layer: str, options: dict[str, str]) -> str:
    rows = "".join(
        f'<Option name="{name}" type="QString" value="{value}"/>\n'
        for name, value in options.items()
    )
    return (
        f'<symbol name="{number}" type="{kind}" alpha="1" clip_to_extent="1" force_rhr="0">\n'
        f'<layer class="{layer}" enabled="1" pass="0" locked="0">\n'
        f'<Option type="Map">\n{rows}</Option>\n</layer>\n</symbol>\n'
    )


def _labels(field: str) -> str:
    return (
        '<labeling type="simple"><settings calloutType="simple">\n'
        f'<text-style fieldName="{field}" isExpression="0" fontSize="10" fontSizeUnit="Point" '
        'fontFamily="Sans Serif" fontWeight="75" textColor="35,30,28,255">'
        '<text-buffer bufferDraw="1" bufferSize="0.8" bufferSizeUnits="MM" '
        'bufferColor="255,255,255,255"/></text-style>\n'
        '<placement placement="6" dist="1.5" distUnits="MM"/>\n'
        "</settings></labeling>\n"
    )
