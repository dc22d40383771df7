"""What tests ask of an HTML page."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Row:
    """A row of a table: the classes of the row, and the text of each cell."""

    kind: str
    cells: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """A page, taken apart: its tags, sections, links, pictures, words and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[tuple[str, str]] = []
        self.rows: dict[str, list[Row]] = {}
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "section":
            self.ids.append(found["id"] or "")
        if tag == "img":
            self.images.append(found)
        if tag == "tr":
            self.rows.setdefault(self.section, []).append(Row(found.get("class") or ""))
        if tag in ("td", "th"):
            self.rows[self.section][-1].cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.words.append((self.section, data))
        if self._in_cell:
            cells = self.rows[self.section][-1].cells
            cells[-1] = " ".join(f"{cells[-1]} {data}".split())

    @property
    def section(self) -> str:
        """The section that is being read; "" before the first."""
        return self.ids[-1] if self.ids else ""

    @property
    def text(self) -> str:
        """All words of the page."""
        return " ".join(" ".join(words for _, words in self.words).split())

    @property
    def texts(self) -> dict[str, str]:
        """All words of each section."""
        return {
            section: " ".join(" ".join(words for where, words in self.words if where == section).split())
            for section in self.ids
        }
