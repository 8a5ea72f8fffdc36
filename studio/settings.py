"""What the studio remembers between starts: one Spec, one JSON file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from studio import spec
from studio.errors import SpecError
from studio.paths import atomic, user_dir
from studio.spec import option


@dataclass(frozen=True)
class Settings:
    theme: str = option("system", label="Appearance", choices=("system", "light", "dark"))
    device: str = option("auto", label="Device", help="Where models run.")
    dtype: str = option(
        "fp32",
        label="Numbers",
        choices=("fp32", "bf16", "fp16"),
        help="How models compute; their weights stay in fp32.",
    )
    rate: float = option(30.0, label="Pictures a second", range=(1, 60), help="Of the live view.")
    model: str = option("critters-64", label="Model")
    history_bytes: int = option(
        2 * 10**9, label="History", range=(10**6, 10**13), help="Bytes that it may take on disk."
    )
    grids_bytes: int = option(
        500 * 10**6, label="Grids", range=(10**6, 10**13), help="Bytes that cells may take on disk."
    )
    recipe: dict[str, Any] = option(dict)  # the last job, offered back after a crash
    started: bool = False  # whether the studio has run before
    clean: bool = True  # whether it was closed in order

    @staticmethod
    def load() -> Settings:
        """The kept settings. What cannot be understood is left at its default, field by field."""
        try:
            kept = json.loads((user_dir() / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Settings()
        settings = Settings()
        for name, value in kept.items() if isinstance(kept, dict) else ():
            try:
                changed = spec.replace(settings, name, value)
                spec.check(changed)
                settings = changed
            except SpecError:
                continue
        return settings

    def save(self) -> None:
        """Raises SaveError if the folder cannot be written."""
        with atomic(user_dir() / "settings.json") as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
