"""What a scan has found in a folder, sorted into the groups that a person may look at.

Made for a hundred thousand files that come in batches: a batch costs what it holds, not what is there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from studio.training.choices import Choices, Crop
from studio.training.folder import File

#: Groups of files. "all" is what is a picture or should be one; "other" is what is none.
GROUPS = ("all", "used", "left out", "error", "small", "twins", "extreme", "other")


class Collection(QObject):
    """The files of one folder and what was decided about them.

    `grown` tells that files came, `sorted_anew` that decisions changed what is used.
    """

    grown = Signal()
    sorted_anew = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.folder: Path | None = None
        self.files: list[File] = []
        self._at: dict[str, int] = {}
        self._places: dict[str, list[int]] = {}
        self._twins: defaultdict[str, list[int]] = defaultdict(list)  # by the first of the group
        self._small: Counter[int] = Counter()  # pictures by their shorter side
        self.classes: Counter[str] = Counter()  # pictures by the sub-folder they lie in
        self._size, self._keep_twins = 1, True
        self.excluded: set[str] = set()
        self.crops: dict[str, Crop] = {}

    # -- what is there ------------------------------------------------------------------------------

    def begin(self, folder: Path | None) -> None:
        """Forget the folder before, and wait for the files of this one."""
        if folder != self.folder:
            self.excluded, self.crops = set(), {}
        self.folder = folder
        self.files, self._at = [], {}
        self._places = {name: [] for name in ("all", "image", "error", "extreme", "other")}
        self._twins.clear()
        self._small.clear()
        self.classes.clear()
        self.sorted_anew.emit()

    def add(self, files: Iterable[File]) -> None:
        """Take in what the scan found."""
        for file in files:
            place = len(self.files)
            self.files.append(file)
            self._at[file.path] = place
            if file.result == "ignore":
                self._places["other"].append(place)
                continue
            self._places["all"].append(place)
            if file.result == "error":
                self._places["error"].append(place)
            else:
                self._sort_in(place, file)
        self.grown.emit()

    def _sort_in(self, place: int, file: File) -> None:
        self._places["image"].append(place)
        self._small[min(file.size)] += 1
        head, inside, _ = file.path.partition("/")
        self.classes[head if inside else ""] += 1
        if "extreme" in file.flags:
            self._places["extreme"].append(place)
        if file.twin:
            group = self._twins[file.twin]
            if not group and (first := self._at.get(file.twin)) is not None:
                group.append(first)
            group.append(place)

    def file(self, path: str) -> File | None:
        """The file at a path."""
        place = self._at.get(path)
        return None if place is None else self.files[place]

    @property
    def pictures(self) -> int:
        """How many files are pictures that can be read."""
        return len(self._places.get("image", ()))

    # -- groups -------------------------------------------------------------------------------------

    def places(self, group: str) -> list[int]:
        """The places in `files` of a group, in the order of the folder; twins stand together."""
        if group == "twins":
            return [place for places in self._twins.values() for place in places]
        # In one breath each, without calls: there may be a hundred thousand.
        files, images = self.files, self._places.get("image", [])
        gone, keep, size = self.excluded, self._keep_twins, self._size
        match group:
            case "small":
                return [p for p in images if min(files[p].size) < size]
            case "used":
                return [p for p in images if _used(files[p], gone, keep)]
            case "left out":
                return [p for p in images if not _used(files[p], gone, keep)]
        return list(self._places.get(group, []))

    def place(self, path: str) -> int:
        """The place in `files` of a path; -1 if there is none."""
        return self._at.get(path, -1)

    def belongs(self, file: File, group: str) -> bool:
        """Whether a file is in a group that new files are appended to; twins are never."""
        if group == "other" or file.result == "ignore":
            return group == "other" and file.result == "ignore"
        if group in ("all", "error"):
            return group == "all" or file.result == "error"
        if file.result == "error" or group == "twins":
            return False
        answers = {"small": self.is_small(file), "extreme": "extreme" in file.flags}
        used = self.is_used(file)
        return (answers | {"used": used, "left out": not used})[group]

    def counts(self) -> dict[str, int]:
        """How many files each group has."""
        told = {name: len(self._places.get(name, ())) for name in GROUPS}
        if self.folder is None:
            return dict.fromkeys(GROUPS, 0)
        told["twins"] = sum(map(len, self._twins.values()))
        told["small"] = sum(n for side, n in self._small.items() if side < self._size)
        told["left out"] = self._left_out()
        told["used"] = self.pictures - told["left out"]
        return told

    def _left_out(self) -> int:
        gone = sum(1 for p in self.excluded if (f := self.file(p)) and f.result == "image")
        if self._keep_twins:
            return gone
        again = (self.files[place] for group in self._twins.values() for place in group)
        return gone + sum(1 for f in again if f.twin and f.path not in self.excluded)

    def is_small(self, file: File) -> bool:
        """Whether a picture has fewer pixels than the model's."""
        return file.result == "image" and min(file.size) < self._size

    def is_used(self, file: File) -> bool:
        """Whether a picture will be learned from."""
        return _used(file, self.excluded, self._keep_twins)

    # -- decisions ----------------------------------------------------------------------------------

    def set_size(self, size: int) -> None:
        """The side of the model's pictures."""
        if size != self._size:
            self._size = size
            self.sorted_anew.emit()

    def keep_twins(self, keep: bool) -> None:
        """Whether near-duplicates are learned from as well."""
        if keep != self._keep_twins:
            self._keep_twins = keep
            self.sorted_anew.emit()

    def exclude(self, paths: Iterable[str], out: bool) -> None:
        """Leave pictures out, or take them in again."""
        (self.excluded.update if out else self.excluded.difference_update)(paths)
        self.sorted_anew.emit()

    def set_crop(self, path: str, crop: Crop | None) -> None:
        """What of a picture is learned from; None goes by the framing."""
        if crop is None:
            self.crops.pop(path, None)
        else:
            self.crops[path] = crop
        self.sorted_anew.emit()

    def show_choices(self, choices: Choices) -> None:
        """The decisions of an earlier run."""
        self.excluded = set(choices.excluded)
        self.crops = {crop.path: crop for crop in choices.crops}
        self._keep_twins = choices.twins
        self.sorted_anew.emit()


def _used(file: File, excluded: set[str], keep_twins: bool) -> bool:
    return file.path not in excluded and (keep_twins or not file.twin)
