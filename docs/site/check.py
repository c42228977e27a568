"""What is wrong with a site that was built: places that are missing, and files of other hosts."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
NO_FILES = {"canonical", "next", "prev", "alternate"}  # kinds of <link> that fetch nothing


class Page(HTMLParser):
    """A page's own anchors, where it leads, and what it fetches."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        values = {key: value or "" for key, value in attributes}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        place = values.get(FETCHED.get(tag, ""), "")
        if place and values.get("rel") not in NO_FILES:
            self.fetched.append(place)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def faults(site: Path) -> Iterator[str]:
    """A line for each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        here = path.relative_to(site)
        for place in page.fetched:
            if urlsplit(place).netloc:
                yield f"{here} fetches {place}"
        for place in dict.fromkeys(page.fetched + page.links):
            parts = urlsplit(place)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.is_file():
                yield f"{here} leads to {place}, which is not there"
                continue
            anchors = pages[file].anchors if parts.fragment and file in pages else ()
            if anchors and unquote(parts.fragment) not in anchors:
                yield f"{here} leads to {place}, which has no such place"
