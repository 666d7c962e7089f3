"""The built site: whole, no link into nothing, words for every picture, light."""

from __future__ import annotations

import os
import posixpath
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from minialex.site import build

pytest.importorskip("mkdocs")
HOME_LIMIT = 500_000  # bytes of the home page with all that it loads, live parts aside


class Page(HTMLParser):
    """What a page points to, and what can be pointed to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.without_words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.names |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("img", "script") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon"):
            self.loads.append(found["href"])
        if tag == "img" and not found.get("alt", "").strip() and "aria-hidden" not in found:
            self.without_words.append(found.get("src", ""))
        if (
            tag == "svg"
            and found.get("role") == "img"
            and not (found.get("aria-label") or found.get("aria-labelledby"))
        ):
            self.without_words.append("svg")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    build.build(folder)
    return folder


@pytest.fixture(scope="module")
def found(site: Path) -> dict[str, Page]:
    return {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }


def test_no_link_leads_into_nothing(site: Path, found: dict[str, Page]) -> None:
    broken = []
    for name, page in found.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or name == "404.html":
                continue
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path))) if parts.path else name
            )
            if not (site / target).exists():
                broken.append(f"{name}: {link}")
            elif parts.fragment and target in found and unquote(parts.fragment) not in found[target].names:
                broken.append(f"{name}: {link} (no such anchor)")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(found: dict[str, Page]) -> None:
    assert {load for page in found.values() for load in page.loads if urlsplit(load).netloc} == set()


def test_every_picture_has_words(found: dict[str, Page]) -> None:
    assert [f"{name}: {src}" for name, page in found.items() for src in page.without_words] == []


def test_pages_are_light(site: Path, found: dict[str, Page], capsys: pytest.CaptureFixture[str]) -> None:
    weights = {}
    for name, page in found.items():
        files = {
            posixpath.normpath(posixpath.join(posixpath.dirname(name), urlsplit(load).path)) for load in page.loads
        }
        weights[name] = sum((site / file).stat().st_size for file in {name, *files} if (site / file).is_file())
    with capsys.disabled():
        print("\npage weights, kB:", ", ".join(f"{name} {size / 1000:.0f}" for name, size in sorted(weights.items())))
    assert weights["index.html"] < HOME_LIMIT


def test_a_failed_build_leaves_the_old_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "site"
    old.mkdir()
    (old / "index.html").write_text("old")
    monkeypatch.setattr(build, "make", lambda: iter(()))
    monkeypatch.setattr(build.sys, "executable", "/bin/false" if os.path.exists("/bin/false") else "/usr/bin/false")
    with pytest.raises(Exception, match="mkdocs could not build the site"):
        build.build(old)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (old / "index.html").read_text() == "old"
