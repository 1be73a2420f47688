"""The providers by name. A new one is a file beside this one and a line here; see docs/providers/new-provider.md."""

from __future__ import annotations

from typing import Any

from runner.providers import wapim, zixflow
from runner.providers.base import Provider

# Any: each provider takes its own settings model, and the key decides which at run time only.
PROVIDERS: dict[str, Provider[Any]] = {
    "wapim": wapim.PROVIDER,
    "zixflow": zixflow.PROVIDER,
}
