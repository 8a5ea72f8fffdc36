"""Trajectories as files, `.traj`: a zip of `trajectory.json` and one `.npy` for each array.

The JSON says what arrays there are; nothing is read, and no memory taken, for anything else. What is
read is untrusted: numbers, shapes and sizes are looked at first, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import studio
from studio.engine import array_zip
from studio.engine.trajectory import Kept, State, Trajectory
from studio.errors import PictureError
from studio.paths import atomic

SUFFIX, VERSION = ".traj", 1
_HEAD = "trajectory.json"
_LONGEST = 2**24  # bytes of the JSON
_MOST = 2**32  # bytes of all arrays
_MOST_SAMPLES, _LONGEST_SIDE, _MOST_FRAMES, _MOST_STATES = 64, 8192, 4096, 1024


def save(trajectory: Trajectory, path: Path, recipe: dict[str, Any] | None = None) -> None:
    """Write a run; its own recipe if none is given. It may still be under way. Raises SaveError."""
    frames = [f for f in trajectory.frames[:] if isinstance(f, Kept)]
    states = trajectory.states[:]
    head = {
        "version": VERSION,
        "studio": studio.__version__,
        "recipe": trajectory.recipe if recipe is None else recipe,
        "low": trajectory.low,
        "high": trajectory.high,
        "frames": [_frame_head(f) for f in frames],
        "states": [_state_head(s) for s in states],
    }
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr(_HEAD, json.dumps(head), zipfile.ZIP_DEFLATED)
        for i, frame in enumerate(frames):
            for name, item in frame.items.items():
                array_zip.write(file, f"frames/{i}/{name}", item.load(), zipfile.ZIP_DEFLATED)
        for i, state in enumerate(states):
            for name, item in state.items.items():
                array_zip.write(file, f"states/{i}/{name}", item.load(), zipfile.ZIP_STORED)


def _frame_head(frame: Kept) -> dict[str, Any]:
    return {
        "moment": frame.moment,
        "weights": [w.tolist() for w in frame.code],
        "arrays": {name: ["|u1", list(item.shape)] for name, item in frame.items.items()},
    }


def _state_head(state: State) -> dict[str, Any]:
    arrays = {name: array_zip.about(item.load()) for name, item in state.items.items()}
    numbers = [state.index, state.total, state.t, state.nfe]
    return {"log_snr": state.log_snr, "leg": state.leg, "numbers": numbers, "arrays": arrays}


# -- reading ----------------------------------------------------------------------------------------


def open_trajectory(path: Path) -> Trajectory:
    """The run in a file, to look at and, while its model is there, to branch. Raises PictureError if
    it cannot be read, is damaged, no trajectory or from a newer studio.
    """
    if not path.is_file():
        raise PictureError(f"There is no trajectory at {path}.")
    trajectory = None
    try:
        with zipfile.ZipFile(path) as file:
            head = _read_head(file)
            if head["version"] > VERSION:
                raise PictureError(f"{path.name} is from a newer studio.", "Update the studio.")
            trajectory = Trajectory(_number(head["low"]), _number(head["high"]))
            _fill(trajectory, head, file)
    except array_zip.BROKEN as error:
        if trajectory is not None:
            trajectory.close()
        raise PictureError(
            f"{path.name} is no trajectory of this studio, or damaged.", "Save the run again."
        ) from error
    return trajectory


def _read_head(file: zipfile.ZipFile) -> dict[str, Any]:
    if file.getinfo(_HEAD).file_size > _LONGEST:
        raise ValueError("its description is too long")
    head = json.loads(file.read(_HEAD), parse_constant=array_zip.refuse)
    if not isinstance(head["version"], int) or not isinstance(head["recipe"], dict):
        raise ValueError("it has no description")
    if len(head["frames"]) > _MOST_FRAMES or len(head["states"]) > _MOST_STATES:
        raise ValueError("it has too many moments")
    parts = [*head["frames"], *head["states"]]
    if sum(array_zip.size(*about) for part in parts for about in part["arrays"].values()) > _MOST:
        raise ValueError("it is too large")
    return head


def _fill(trajectory: Trajectory, head: dict[str, Any], file: zipfile.ZipFile) -> None:
    if not trajectory.low < trajectory.high or not head["frames"]:
        raise ValueError("it shows nothing")
    pictures, last = head["frames"][0]["arrays"]["denoised"][1], -math.inf
    for i, frame in enumerate(head["frames"]):
        log_snr, step, calls, norm = frame["moment"]
        if _number(log_snr) < last:
            raise ValueError("its moments are out of order")
        weights = tuple(_weights(w, pictures[0]) for w in frame["weights"])
        _check_frame(frame["arrays"], pictures, len(weights))
        moment = (last := _number(log_snr)), int(step), int(calls), _number(norm)
        trajectory.put_frame(moment, _arrays(file, f"frames/{i}", frame["arrays"]), weights)
    last = -math.inf
    for i, state in enumerate(head["states"]):
        _check_state(state["arrays"], pictures)
        arrays = _arrays(file, f"states/{i}", state["arrays"])
        (index, total, t, nfe), log_snr = state["numbers"], _number(state["log_snr"])
        if log_snr < last or not 0 < _number(t) <= 1:
            raise ValueError("its states are out of order")
        last, leg = log_snr, int(state["leg"])
        trajectory.put_state(log_snr, leg, (int(index), int(total), float(t), int(nfe)), arrays)
    trajectory.recipe = head["recipe"]


def _check_frame(arrays: dict[str, Any], pictures: list[int], weights: int) -> None:
    """Raise ValueError if the arrays of a frame are not those of a picture of this shape."""
    n, h, w, c = pictures
    if not (0 < n <= _MOST_SAMPLES and 0 < max(h, w) <= _LONGEST_SIDE and c in (1, 3)):
        raise ValueError("its pictures have an impossible shape")
    whole, one = [n, h, w, c], [n, h, w, 1]
    wanted = {"denoised": whole}
    if weights:
        wanted["noise"] = whole
    elif len(arrays) > 1:
        wanted |= {"x": whole, "score": one}
    if weights not in (0, 3) or arrays != {k: ["|u1", v] for k, v in wanted.items()}:
        raise ValueError("a frame does not fit the others")


def _check_state(arrays: dict[str, Any], pictures: list[int]) -> None:
    """Raise ValueError if the arrays of a state are not such as samplers keep."""
    n, _, _, c = pictures
    batch = [n, c, *arrays["x"][1][2:]]
    if arrays["x"] != arrays["denoised"] or arrays["x"][1] != batch or len(batch) != 4:
        raise ValueError("a state does not fit the frames")
    if max(batch) > _LONGEST_SIDE or len(arrays) > 32:
        raise ValueError("a state has an impossible shape")
    for name, (_, shape) in arrays.items():
        known = shape in ([], [n], batch) or (shape[1:] in ([n], batch) and 0 < shape[0] <= 16)
        if not known or not (name in ("x", "denoised") or name.startswith("memory.")):
            raise ValueError("a state has a part that no sampler keeps")


def _arrays(file: zipfile.ZipFile, where: str, about: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: array_zip.read(file, f"{where}/{name}", *about[name]) for name in about}


def _weights(values: Any, count: int) -> np.ndarray:
    array = np.array(values, np.float32)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError("weights that are no numbers")
    return array


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number")
    return number
