"""Two comparisons beside each other as HTML: a table for a page, and a page of its own."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from string import Template
from typing import Any

from pipelines.errors import StorageError
from pipelines.log_tables import Run
from pipelines.sheet.beside import COMPARED, Beside, Row, Side, in_words
from pipelines.thumbnails import Thumbnails

Address = Callable[[Run], str | None]  # of a run's small picture
PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 24px auto; max-width: 1100px; padding: 0 16px; }
h1 { font: 600 26px/1.2 Georgia, serif; }
$css
</style>
<h1>$title</h1>
$body
</html>
""")
CSS = """
.cs-beside-wide { overflow-x: auto; }
.cs-beside { border-collapse: collapse; width: 100%; font-size: 14px; }
.cs-beside th, .cs-beside td {
  text-align: left; vertical-align: top; padding: 7px 10px; border-bottom: 1px solid #8884;
  overflow-wrap: anywhere;
}
.cs-beside img {
  display: block; width: 112px; height: 112px; object-fit: contain; background: #8882;
}
.cs-beside img.small { image-rendering: pixelated; }
.cs-beside-none { display: grid; place-items: center; width: 112px; min-height: 60px;
  border: 1px dashed #8888; font-size: 12px; padding: 4px; box-sizing: border-box; }
.cs-beside dl { display: grid; grid-template-columns: 9.5em 5em 5em; gap: 1px 8px; margin: 0; }
.cs-beside dd, .cs-beside dt { margin: 0; font-variant-numeric: tabular-nums; }
.cs-beside dt { opacity: .75; }
.cs-beside tbody th { font-weight: 600; min-width: 90px; }
@media (max-width: 640px) {
  .cs-beside-cells tr { display: grid; grid-template-columns: 1fr 1fr; }
  .cs-beside-cells thead th:first-child, .cs-beside-cells thead th:last-child { display: none; }
  .cs-beside-cells tbody th, .cs-beside-cells tbody td { border: 0; }
  .cs-beside-cells tbody th, .cs-beside-cells tbody td:last-child { grid-column: 1 / -1; }
  .cs-beside-cells tbody td:last-child { border-bottom: 1px solid #8884; }
}
"""


def page_of(found: Beside, thumbnails: Thumbnails) -> bytes:
    """A page that needs nothing else; it names no file of this machine."""

    def address(run: Run) -> str | None:
        try:
            path = thumbnails.get(run.image_sha256)
            data = path.read_bytes() if path else None
        except (OSError, StorageError):
            return None
        kind = "webp" if path and path.suffix == ".webp" else "png"
        return data and f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    title = f"{found.ids[0]} beside {found.ids[1]}"
    body = (f"<h2>What all cells share, and the two do not</h2>{differences_table(found)}"
            f"<h2>Cells</h2><p>{escape(summary(found))}</p>"
            f"{rows_table(found, found.rows, address)}")
    return PAGE.substitute(title=escape(title), css=CSS, body=body).encode()


def summary(found: Beside) -> str:
    """How the cells go together, in a sentence or two."""
    only = found.only
    both = len(found.rows) - len(only[0]) - len(only[1])
    same = sum(row.same_picture for row in found.rows)
    text = (f"{both} cell{'s' * (both != 1)} of both, of which {same} "
            f"{'is' if same == 1 else 'are'} the same picture bit for bit.")
    for name, rows in zip(found.ids, only, strict=True):
        if rows:
            text += f" {len(rows)} only in {name}."
    return text


def differences_table(found: Beside) -> str:
    if not found.differences:
        return ("<p>Nothing: base request, reference, models, versions and hardware are the same."
                "</p>")
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>"
        + "".join(f"<td>{escape(in_words(value))}</td>" for value in pair) + "</tr>"
        for name, pair in found.differences.items())
    return _table("", found, rows)


def rows_table(found: Beside, rows: Sequence[Row], address: Address) -> str:
    """Rows as a table: coordinates, the two pictures, their measures side by side."""
    lines = "".join(
        f"<tr><th scope='row'>{escape(row.name)}</th>"
        f"<td>{_picture(row.left, address)}</td><td>{_picture(row.right, address)}</td>"
        f"<td>{_measures(row)}</td></tr>" for row in rows)
    return _table("<th scope='col'>Measures, first and second</th>", found, lines,
                  " cs-beside-cells")


def _table(more: str, found: Beside, lines: str, name: str = "") -> str:
    heads = "".join(f"<th scope='col'>{escape(name)}</th>" for name in found.ids)
    return (f"<div class='cs-beside-wide'><table class='cs-beside{name}'><thead><tr><th></th>"
            f"{heads}{more}</tr></thead><tbody>{lines}</tbody></table></div>")


def _picture(side: Side | None, address: Address) -> str:
    if side is None:
        return "<div class='cs-beside-none'>no such cell</div>"
    url = address(side.run) if side.run and not side.state else None
    if side.run is None or url is None:
        reason = side.state or "its file is missing or damaged"
        return f"<div class='cs-beside-none'>{escape(reason[:160])}</div>"
    small = " class='small'" if max(side.run.width or 0, side.run.height or 0) <= 112 else ""
    return f"<img{small} src='{escape(url)}' alt='run {side.run.id}' loading='lazy'>"


def _measures(row: Row) -> str:
    values = [side.measures if side else {} for side in (row.left, row.right)]
    lines = []
    for name in COMPARED:
        if any(name in of for of in values):
            pair = "".join(f"<dd>{escape(number(of.get(name)))}</dd>" for of in values)
            lines.append(f"<dt>{escape(name)}</dt>{pair}")
    same = "<p>The same picture, bit for bit.</p>" if row.same_picture else ""
    return f"{same}<dl>{''.join(lines)}</dl>"


def number(value: Any) -> str:
    """A measure as people read it."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else (
        f"{value:,.0f}" if isinstance(value, float) else str(value))
