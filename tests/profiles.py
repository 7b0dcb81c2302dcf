"""Small ICC profiles of version 2, written as the specification has them."""

import struct

D50 = (0.9642, 1.0, 0.8249)
# Columns of Display P3 and of sRGB, adapted to D50.
P3 = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))


def xyz(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma_curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def description(text):
    data = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + bytes(78)


def profile(space, name, tags, kind=b"mntr", connection=b"XYZ "):
    tags = {b"desc": description(name), b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(D50)} | tags
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    head = (struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, kind, space, connection)
            + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
            + struct.pack(">3i", *(round(value * 65536) for value in D50)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def rgb_profile(columns=P3, gamma=2.2, name="Wide"):
    return profile(b"RGB ", name, {
        **{tag: xyz(column) for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns,
                                                   strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma_curve(gamma))})


def grey_profile(gamma=1.0, name="Linear grey"):
    return profile(b"GRAY", name, {b"kTRC": gamma_curve(gamma)})


def cmyk_profile(name="Grey ink"):
    """An odd press: all inks are greys, black darker than the others."""
    ramp = bytes(range(256))
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = b"".join(bytes((round(255 * (1 - k) * (1 - (c + m + y) / 6)), 128, 128))
                     for c, m, y, k in corners)
    lut = (b"mft1\0\0\0\0" + bytes((4, 3, 2, 0))
           + struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
           + ramp * 4 + table + ramp * 3)
    return profile(b"CMYK", name, {b"A2B0": lut}, b"prtr", b"Lab ")
