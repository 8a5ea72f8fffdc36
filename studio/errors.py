"""What can go wrong for a person, said in one sentence with one way out.

Everything a person could have caused or can mend is a StudioError. Any other exception is a bug of
ours and goes to the crash dialog with its traceback.
"""


class StudioError(Exception):
    """A clear sentence, and in `hint` the one thing to do about it (may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class SpecError(StudioError):
    """A setting is unknown, of the wrong kind or out of range, or two settings exclude each other."""


class CheckpointError(StudioError):
    """A model file is missing, damaged or not for us."""


class HubError(StudioError):
    """A model could not be found on the hub or fetched from it. What has come is kept."""


class PictureError(StudioError):
    """A picture cannot be read, or does not fit the model."""


class DataError(StudioError):
    """A training folder or pack cannot be used."""


class DeviceError(StudioError):
    """The device is missing or out of memory."""


class SaveError(StudioError):
    """A file could not be written; nothing that was there before is lost."""


class SolverError(StudioError):
    """A solver diverged or cannot go on."""
