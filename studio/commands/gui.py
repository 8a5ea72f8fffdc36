"""`score-studio` and `score-studio gui`: the window."""

from __future__ import annotations

from dataclasses import dataclass

from studio.commands import Command, Outcome
from studio.spec import option


@dataclass(frozen=True, kw_only=True)
class Gui(Command):
    """Open the window (what score-studio does without a command)."""

    install_desktop: bool = option(
        False, help="Do not open it: put the studio into the desktop's menu, with its icon."
    )

    def run(self) -> Outcome:
        if self.install_desktop:
            from studio import desktop

            files = desktop.install()
            lines = "\n".join(f"wrote {path}" for path in files)
            return Outcome({"files": [str(path) for path in files]}, lines)
        from studio.doctor import require_display

        require_display()
        from studio import app

        return Outcome({"closed": True}, code=app.run())
