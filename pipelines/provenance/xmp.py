"""XMP: what kind of picture this is, in IPTC's words, and this program's record where a file format
has no text chunks."""

from __future__ import annotations

import re
from typing import Literal
from xml.sax.saxutils import escape, unescape

# https://cv.iptc.org/newscodes/digitalsourcetype
SourceType = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]
NAMESPACE = "http://ns.contact-sheet.example/1.0/"
RECORD = re.compile(r"<contactsheet:record>([^<]*)</contactsheet:record>")
# What XML cannot hold though JSON can; JSON has its own signs for control characters.
NOT_XML = re.compile("[\ufffe\uffff\ud800-\udfff]")


def write_xmp(source_type: SourceType, record: str = "") -> str:
    """An XMP packet; `record` is JSON."""
    record = NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", record)
    ours = (f'<rdf:Description rdf:about="" xmlns:contactsheet="{NAMESPACE}">'
            f"<contactsheet:record>{escape(record)}</contactsheet:record></rdf:Description>"
            if record else "")
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        "<xmp:CreatorTool>Contact Sheet</xmp:CreatorTool>"
        "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/"
        f"{source_type}</Iptc4xmpExt:DigitalSourceType></rdf:Description>"
        f'{ours}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def record_of(xmp: str) -> str | None:
    """The JSON that `write_xmp` was given; None where there is none."""
    match = RECORD.search(xmp)
    return unescape(match[1]) if match else None
