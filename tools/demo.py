"""`make demo`: a real campaign for each provider against the built-in sandbox, and again to see that nothing is sent twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CAMPAIGN = [sys.executable, "-m", "runner"]


def campaign(*arguments: str, expect: int = 0) -> None:
    """Show a command, run it, and insist on its exit code."""
    print(f"\n$ campaign {' '.join(arguments)}", flush=True)
    code = subprocess.run([*CAMPAIGN, *arguments], cwd=ROOT, check=False).returncode
    if code != expect:
        sys.exit(f"the demo expected exit code {expect} here and got {code}")


def main() -> None:
    """Exit 1 of a send means: finished, and some rows were refused or are unknown (the demo has such rows on purpose)."""
    for leftover in ("sandbox.sqlite3", "sandbox.sqlite3-journal"):
        (ROOT / "reports" / leftover).unlink(missing_ok=True)
    campaign("preview", "campaigns/demo-wapim.yaml", "--sandbox", "-n", "2")
    campaign("send", "campaigns/demo-wapim.yaml", "--sandbox", "--yes", expect=1)
    campaign("send", "campaigns/demo-zixflow.yaml", "--sandbox", "--yes")
    print("\nThe same file again: nobody gets anything twice.")
    campaign("send", "campaigns/demo-wapim.yaml", "--sandbox", "--yes")
    print("\nOpen the results: reports/demo-wapim-sandbox/results.xlsx and reports/demo-zixflow-sandbox/results.xlsx")


if __name__ == "__main__":
    main()
