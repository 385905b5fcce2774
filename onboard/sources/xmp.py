"""XMP packets of images: a flat dictionary of their properties, read with caution."""

from __future__ import annotations

import re
from xml.etree import ElementTree

MAX_BYTES = 1 << 20
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
PREFIXES = {
    "http://www.dji.com/drone-dji/1.0": "drone-dji",
    "http://pix4d.com/camera/1.0": "Camera",
    "https://pix4d.com/camera/1.0": "Camera",
    "https://www.skydio.com/drone-skydio/1.0": "drone-skydio",
    "http://www.skydio.com/drone-skydio/1.0": "drone-skydio",
    "http://www.parrot.com/drone-parrot/1.0": "drone-parrot",
    "http://ns.adobe.com/xap/1.0": "xmp",
    "http://ns.adobe.com/tiff/1.0": "tiff",
    "http://ns.adobe.com/exif/1.0": "exif",
}
"""Namespaces by address, never by the prefix that a file happens to use."""


def parse_xmp(packet: bytes | str | None) -> dict[str, str]:
    """Returns the properties of an XMP packet as ``prefix:Name`` → text; empty if there is none.

    Fields of a structure are ``prefix:Struct/prefix:Name``. Packets over 1 MiB and packets with
    declarations (entities) are not read; one that is no XML is searched for attributes.
    """
    if not packet or len(packet) > MAX_BYTES:
        return {}
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet
    text = text.strip("\0\ufeff \r\n\t")
    if "<!" in text.replace("<!--", ""):
        return {}
    start, end = text.find("<x:xmpmeta"), text.rfind("</x:xmpmeta>")
    if start >= 0 and end > start:
        text = text[start : end + len("</x:xmpmeta>")]
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no declarations, size capped
    except ElementTree.ParseError:
        pairs = re.findall(r'([\w-]+:[\w-]+)\s*=\s*"([^"]*)"', text)
        return {name: value for name, value in pairs if not name.startswith("xmlns:")}
    found: dict[str, str] = {}
    for node in root.iter(f"{RDF}Description"):
        _collect(node, "", found)
    return found


def _collect(node: ElementTree.Element, parent: str, found: dict[str, str]) -> None:
    for key, value in node.attrib.items():
        name = _name(key)
        if name:
            found.setdefault(parent + name, value.strip())
    for child in node:
        name = _name(child.tag)
        if not name:
            continue
        text = (child.text or "").strip()
        if text:
            found.setdefault(parent + name, text)
        if child.attrib or len(child):
            _collect(child, f"{parent}{name}/", found)


def _name(tag: str) -> str:
    """Returns ``prefix:Name`` of a known or unknown namespace; empty for RDF's own."""
    if tag.startswith(RDF):
        return ""
    space, _, local = tag.rpartition("}")
    address = space.lstrip("{").rstrip("/#")
    return f"{PREFIXES.get(address, address.rsplit('/', 1)[-1] or 'x')}:{local}"
