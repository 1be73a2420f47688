"""`make docs`: writes the pages that are made from the program's own models. A test keeps them equal."""

from __future__ import annotations

from pathlib import Path

from runner.reference import campaign_file_page

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    prose = (DOCS / "campaign-file.in.md").read_text(encoding="utf-8")
    (DOCS / "campaign-file.md").write_text(campaign_file_page(prose), encoding="utf-8")
    print(DOCS / "campaign-file.md")


if __name__ == "__main__":
    main()
