"""Builds the documentation's site from docs/*.md and the public docstrings.

    make docs

Zensical makes pages of Markdown and refuses links and references that lead nowhere; `pages` gives
it what the links lead to, and `check` looks at what came out. Nothing of it needs a network.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from docs.site import check, pages

ROOT = Path(__file__).resolve().parents[2]
HERE, OUT = ROOT / "docs" / "site", ROOT / "site"
# It lets a page that was opened as a file search; Zensical names it on another host.
SHIM = "https://unpkg.com/iframe-worker/shim"


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    work = OUT / "work"
    pages.stage(ROOT, work / "pages")
    shutil.copyfile(HERE / "zensical.toml", work / "zensical.toml")
    for name in ("site.css", "iframe-worker.js"):
        shutil.copyfile(HERE / name, work / "pages" / name)
    program = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if subprocess.run(program, cwd=work).returncode:
        return 1
    for page in (work / "html").rglob("*.html"):
        up = "../" * (len(page.relative_to(work / "html").parts) - 1)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(SHIM, f"{up}iframe-worker.js"), encoding="utf-8")
    if wrong := list(check.faults(work / "html")):
        print("\n".join(wrong), file=sys.stderr)
        return 1
    for name in (work / "html").iterdir():
        name.rename(OUT / name.name)
    shutil.rmtree(work)
    print(f"{OUT / 'index.html'}: open it in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
