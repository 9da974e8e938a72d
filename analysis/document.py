"""A report as a list of blocks: Markdown with pictures beside it, or one HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from analysis.tables import grouped, is_numeric, markdown

DPI = 150
"""Dots per inch of pictures."""
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""What the page may load: nothing from anywhere, only what it holds itself."""
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  max-width: 1200px; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
p { max-width: 75ch; } figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; max-width: 110ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .4rem 0 1rem; }
th, td { padding: .2rem .7rem; text-align: left; white-space: nowrap; }
td { border-bottom: 1px solid #eee; }
th { border-bottom: 2px solid #999; } td.number, th.number { text-align: right;
  font-variant-numeric: tabular-nums; } tr:hover td { background: #f6f6f6; }
summary { cursor: pointer; font-weight: 600; } h3 { font-size: 1rem; margin: 1rem 0 0; }
"""


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class Table:
    """A frame of texts; a column ``setting`` becomes headings."""

    frame: pd.DataFrame
    folded: str = ""
    """If set, the table is hidden in the page behind this line."""


@dataclass(frozen=True)
class Picture:
    """A drawn figure, the name of its file, and what is read out to those who cannot see it."""

    figure: Figure
    name: str
    caption: str

    def png(self) -> bytes:
        """The figure as PNG; the same bytes for the same figure."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()


@dataclass(frozen=True)
class Interactive:
    """A figure to explore; in the page only."""

    figure: go.Figure
    name: str
    caption: str


Block = Heading | Paragraph | Table | Picture | Interactive


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The report in Markdown; pictures are linked by file name."""
    parts = [f"# {title}"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"## {text}")
            case Paragraph(text):
                parts.append(text)
            case Table(frame):
                parts.append(markdown(frame))
            case Picture(_, name, caption):
                parts.append(f"![{caption}]({name}.png)")
            case Interactive():
                pass
    return "\n\n".join(parts) + "\n"


def as_page(title: str, blocks: Sequence[Block], pngs: dict[str, bytes]) -> str:
    """The report as one HTML file that fetches nothing.

    Args:
        title: of the page.
        blocks: what it holds.
        pngs: the pictures by name.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"<h2>{html.escape(text)}</h2>")
            case Paragraph(text):
                parts.append(f"<p>{html.escape(text)}</p>")
            case Table(frame, folded):
                parts.append(_table(frame, folded))
            case Picture(_, name, caption):
                data, line = base64.b64encode(pngs[name]).decode(), html.escape(caption)
                parts.append(
                    f'<figure><img src="data:image/png;base64,{data}" alt="{line}"></figure>'
                )
            case Interactive(figure, name, caption):
                line = f"<figcaption>{html.escape(caption)}</figcaption>"
                parts.append(f"<figure>{_plot(figure, name)}{line}</figure>")
    script = (
        f"<script>{get_plotlyjs()}</script>"
        if any(isinstance(b, Interactive) for b in blocks)
        else ""
    )
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>{script}</head>\n"
        f"<body>{body}</body></html>\n"
    )


def _table(frame: pd.DataFrame, folded: str) -> str:
    parts = []
    for title, part in grouped(frame):
        rows = part.astype(str).to_numpy().tolist()
        kinds = [
            ' class="number"' if is_numeric([row[i] for row in rows]) else ""
            for i in range(part.shape[1])
        ]
        head = _row("th", list(map(str, part.columns)), kinds)
        body = "".join(_row("td", row, kinds) for row in rows)
        parts.append(f"<h3>{html.escape(title)}</h3>" if title else "")
        table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
        parts.append(f'<div class="wide">{table}</div>')
    tables = "".join(parts)
    if not folded:
        return tables
    return f"<details><summary>{html.escape(folded)}</summary>{tables}</details>"


def _row(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> str:
    parts = (f"<{tag}{k}>{html.escape(c)}</{tag}>" for c, k in zip(cells, kinds, strict=True))
    return f"<tr>{''.join(parts)}</tr>"


def _plot(figure: go.Figure, name: str) -> str:
    return str(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            include_mathjax=False,
            div_id=name,
            # By default a button offers to upload the data to Plotly's servers.
            config={
                "displaylogo": False,
                "responsive": True,
                "showSendToCloud": False,
                "plotlyServerURL": "",
            },
        )
    )
