"""What is kept of a run: views to within a few levels, states to the last bit, memory within bounds;
and trajectories as files, whole, damaged and hostile."""

from __future__ import annotations

import errno
import io
import json
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build, mixture_score
from test_jobs import OneModel

from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Step
from studio.diffusion.sde import VESDE, VPSDE
from studio.engine import jobs, spill
from studio.engine.branch import branched
from studio.engine.events import Begun, Note, Picture
from studio.engine.jobs import SampleJob, Setting, kept_frame, live_frame
from studio.engine.spill import Spill
from studio.engine.trajectory import VIEWS, Kept, Trajectory
from studio.engine.trajectory_file import open_trajectory, save
from studio.errors import CheckpointError, PictureError, SaveError
from studio.weights.shelf import Shelf

SHAPE = (3, 8, 8)


def a_score(sde: Any = None) -> Any:
    return mixture_score(sde or VPSDE(), (-0.6, 0.6), 0.2, (0.5, 0.5), SHAPE)


def events(sampler: str = "ancestral", score: Any = None, **options: Any) -> list[Any]:
    job = SampleJob("exact", build(sampler, **({"steps": 30} | options)), 2, 5)
    return list(job.run(Setting(OneModel(score or a_score()), "cpu", rate=1e9)))


def trajectory_of(told: list[Any]) -> Trajectory:
    return next(e.trajectory for e in told if isinstance(e, Begun))


def noise_frame(i: int, side: int = 16) -> Kept:
    rng = np.random.default_rng(i)
    clean, noise = rng.integers(0, 256, (2, 2, side, side, 3), np.uint8)
    one = np.ones(2, np.float32)
    weights = one * 0.6, one * 0.8, one
    return Kept.of((float(i), i, i, 0.0), {"denoised": clean, "noise": noise}, weights)


def filled(trajectory: Trajectory, count: int) -> Trajectory:
    for i in range(count):
        if trajectory.due(float(i)) or i == count - 1:
            trajectory.add(noise_frame(i))
    return trajectory


# -- frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
@pytest.mark.parametrize("small", [0, 10**6], ids=["large", "small"])
def test_kept_frames_look_as_the_run_did(sde: Any, small: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs, "_SMALL", small)
    score = a_score(sde)
    x = torch.rand(2, *SHAPE, generator=torch.manual_seed(0)) * 1.2 - 0.6
    for t in (0.999, 0.5, 0.1, 0.01):
        times = torch.tensor([t, t])
        a, s = sde.marginal(times)
        noisy = a.reshape(-1, 1, 1, 1) * x + s.reshape(-1, 1, 1, 1) * torch.randn(2, *SHAPE)
        clean = score.denoised(noisy, times)
        step = Step(1, 9, t, noisy, clean, 1)
        before = live_frame(score, replace(step, denoised=0.9 * clean), -1.0)
        live = live_frame(score, step, 0.0, before)
        trajectory = Trajectory(0, 1)
        trajectory.add(kept_frame(score, replace(step, denoised=0.9 * clean), -1.0))
        trajectory.add(kept_frame(score, step, 0.0))
        for view in VIEWS:
            far = np.abs(trajectory.frames[1].view(view).astype(int) - live.view(view))
            assert far.max() <= 3, (t, view)


def test_every_view_of_a_kept_frame_is_a_picture() -> None:
    told = events()
    for frame in trajectory_of(told).frames:
        for view in VIEWS:
            stack = frame.view(view)
            assert stack.dtype == np.uint8
            assert stack.shape[:3] == (2, 8, 8)
            assert stack.shape[3] == (1 if view in ("score", "change") else 3)


def test_change_is_since_the_kept_frame_before() -> None:
    trajectory = filled(Trajectory(0, 10, marks=10), 3)
    assert not trajectory.frames[0].change.any()
    first, second = (f.denoised.astype(float) for f in trajectory.frames[1:])
    apart = 4 * np.sqrt(((second - first) ** 2).mean(-1, keepdims=True))
    assert np.abs(trajectory.frames[2].change - apart.clip(0, 255)).max() <= 1


def test_the_end_of_a_run_is_the_result() -> None:
    told = events()
    last = trajectory_of(told).frames[-1]
    assert (last.x == told[-1].pictures).all()
    assert (last.denoised == told[-1].pictures).all()
    assert not last.score.any()
    with pytest.raises(AttributeError):
        _ = last.nothing  # type: ignore[attr-defined]


def test_96_frames_of_16_pictures_of_64_px_take_less_than_40_mb() -> None:
    rng = np.random.default_rng(0)
    clean, noise = rng.integers(0, 256, (2, 16, 64, 64, 3), np.uint8)
    w = np.ones(16, np.float32)
    trajectory = Trajectory(0, 96)
    for i in range(96):
        # Arrays of their own, as a run makes them.
        arrays = {"denoised": clean.copy(), "noise": noise.copy()}
        trajectory.add(Kept.of((float(i), i, i, 0.0), arrays, (w, w, w)))
    assert len(trajectory.frames) == 96
    assert trajectory.spilled == 0
    assert trajectory.bytes < 40e6
    assert trajectory.bytes == sum(f.bytes for f in trajectory.frames)


# -- budgets ------------------------------------------------------------------------------------------


def test_what_does_not_fit_into_memory_is_read_back_from_the_file() -> None:
    small = filled(Trajectory(0, 100, marks=100, budget=20_000), 100)
    large = filled(Trajectory(0, 100, marks=100), 100)
    assert small.bytes <= small.budget
    assert small.spilled > 0
    assert len(small.frames) == len(large.frames) == 100
    for a, b in zip(small.frames, large.frames):
        for view in VIEWS:
            assert (a.view(view) == b.view(view)).all()
    folder = spill.user_dir() / "spill"
    assert list(folder.iterdir()) == []  # a file without a name: nothing is left behind
    small.close()
    assert small.frames == []


def test_when_the_file_is_full_too_every_other_frame_goes() -> None:
    trajectory = filled(Trajectory(0, 1000, marks=1000, budget=20_000, disk=30_000), 1000)
    assert trajectory.bytes <= 20_000
    assert trajectory.spilled <= 30_000
    assert trajectory.frames[0].step == 0
    assert trajectory.frames[-1].step == 999
    assert len(trajectory.frames) >= 4
    before = trajectory.frames[0].denoised.astype(float)
    apart = 4 * np.sqrt(((trajectory.frames[1].denoised - before) ** 2).mean(-1, keepdims=True))
    assert np.abs(trajectory.frames[1].change - apart.clip(0, 255)).max() <= 1


def test_a_full_disk_thins_the_frames_and_is_said_once(monkeypatch: Any) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spill.tempfile, "TemporaryFile", lambda **_: Full())
    monkeypatch.setattr("studio.engine.jobs.Trajectory", lambda *a: Trajectory(*a, budget=20_000))
    told = events(steps=60)
    trajectory = trajectory_of(told)
    assert trajectory.bytes <= 20_000
    assert 4 <= len(trajectory.frames) < 30
    assert len(trajectory.states) >= 2
    assert (trajectory.frames[-1].denoised == told[-1].pictures).all()
    notes = [e.text for e in told if isinstance(e, Note) and "No space left" in e.text]
    assert len(notes) == 1


def test_many_runs_share_one_limit_of_memory(monkeypatch: Any) -> None:
    before = spill.in_all()[0]
    monkeypatch.setattr(spill, "MEMORY_IN_ALL", before + 100_000)
    many = [filled(Trajectory(0, 100, marks=100), 20) for _ in range(10)]
    assert sum(t.bytes for t in many) <= 100_000
    assert many[-1].spilled > 0
    assert all(len(t.frames) == 20 for t in many)
    for trajectory in many:
        trajectory.close()
    assert spill.in_all()[0] <= before


def test_a_window_may_look_while_the_worker_keeps_and_thins() -> None:
    trajectory = Trajectory(0, 1000, marks=1000, budget=20_000, disk=60_000)
    looked = 0

    def look() -> None:
        nonlocal looked
        while len(trajectory.frames) < 2 or trajectory.frames[-1].step < 999:
            if (frame := trajectory.nearest(500.0)) is not None:
                expected = noise_frame(frame.step).denoised
                assert (frame.denoised == expected).all()
                assert frame.view("change").shape == (*expected.shape[:3], 1)
                looked += 1

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        filled(trajectory, 1000)
        looking.result(timeout=20)
    assert looked


def test_a_home_that_cannot_be_written_is_no_more_than_less_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    kept = Spill(memory=10, disk=1000, folder=tmp_path / "file")
    array = np.arange(100, dtype=np.float32)
    assert kept.put(array) is None
    assert kept.trouble
    item = kept.put(array, must=True)
    assert item is not None
    assert (item.load() == array).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_the_file_gives_back_every_kind_of_array(dtype: Any, shape: tuple[int, ...]) -> None:
    kept = Spill(memory=0, disk=10_000)
    arrays = [np.full(shape, i).astype(dtype) for i in range(3)]
    items = [kept.put(array) for array in arrays]
    for item, array in zip(items, arrays):
        assert item is not None
        found = item.load()
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


# -- states -------------------------------------------------------------------------------------------


def test_states_are_the_steps_themselves_evenly_in_log_snr() -> None:
    sampler = build("dpm3m", steps=100)
    score = a_score()
    told = events("dpm3m", score, steps=100)
    trajectory = trajectory_of(told)
    assert 22 <= len(trajectory.states) <= 25
    gaps = np.diff([s.log_snr for s in trajectory.states])
    assert gaps.max() < 2 * (trajectory.high - trajectory.low) / 24
    noise = Noise.of(5, 2, SHAPE, score.sde, depth=sampler.depth)
    for step in sampler.run(score, noise):
        for state in trajectory.states:
            if state.index == step.index and not step.finished:
                again = state.step()
                assert (again.t, again.nfe, again.total) == (step.t, step.nfe, step.total)
                assert torch.equal(again.x, step.x)
                assert torch.equal(again.denoised, step.denoised)
                assert again.memory.keys() == step.memory.keys()
                assert all(torch.equal(again.memory[k], v) for k, v in step.memory.items())


def test_the_state_before_a_moment_is_the_last_one_not_after_it() -> None:
    trajectory = trajectory_of(events())
    states = trajectory.states
    assert trajectory.state_before(trajectory.low - 1) is None
    assert trajectory.state_before(states[3].log_snr) is states[3]
    assert trajectory.state_before(states[3].log_snr + 1e-3) is states[3]
    assert trajectory.state_before(1e9) is states[-1]


def test_a_run_without_a_recipe_keeps_no_states() -> None:
    trajectory = Trajectory(0, 1)
    assert not trajectory.due_state(0.5)


# -- files --------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Trajectory, Path]:
    trajectory = trajectory_of(events("dpm3m"))
    path = tmp_path / "run.traj"
    save(trajectory, path)
    return trajectory, path


def test_a_saved_run_looks_the_same_and_branches_to_the_same_pixels(saved: Any) -> None:
    trajectory, path = saved
    opened = open_trajectory(path)
    assert (opened.low, opened.high) == (trajectory.low, trajectory.high)
    assert opened.recipe == trajectory.recipe
    for a, b in zip(opened.frames, trajectory.frames, strict=True):
        assert (a.log_snr, a.step, a.calls) == (b.log_snr, b.step, b.calls)
        for view in VIEWS:
            assert (a.view(view) == b.view(view)).all()
    setting = Setting(OneModel(a_score()), "cpu", rate=0)
    results = [
        list(branched(t, 0.0, sampler=build("pc", steps=4), seed=4).run(setting))[-1].pictures
        for t in (opened, trajectory)
    ]
    assert (results[0] == results[1]).all()


def test_a_run_under_way_can_be_saved(tmp_path: Path) -> None:
    job = SampleJob("exact", build("ancestral", steps=30), 2, 5)
    run = job.run(Setting(OneModel(a_score()), "cpu", rate=1e9))
    trajectory, shown = None, 0
    for event in run:
        trajectory = event.trajectory if isinstance(event, Begun) else trajectory
        shown += isinstance(event, Picture)
        if shown == 5:
            break
    assert trajectory is not None
    save(trajectory, tmp_path / "a.traj")
    assert len(open_trajectory(tmp_path / "a.traj").frames) == len(trajectory.frames)


def test_a_run_of_a_model_that_is_gone_can_be_looked_at_but_not_branched(saved: Any) -> None:
    opened = open_trajectory(saved[1])
    assert opened.frames[-1].denoised.any()
    job = branched(opened, 0.0, seed=1)
    with pytest.raises(CheckpointError, match="no model “exact”"):
        list(job.run(Setting(Shelf([]), "cpu")))


def test_a_full_disk_leaves_the_old_file(saved: Any, monkeypatch: Any) -> None:
    trajectory, path = saved
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(SaveError, match="No space"):
        save(trajectory, path)
    assert path.read_bytes() == before


def rewritten(path: Path, change: Any) -> None:
    """The file with its description changed by `change`, all else as it is."""
    with zipfile.ZipFile(path) as old:
        parts = {n: old.read(n) for n in old.namelist()}
    head = json.loads(parts["trajectory.json"])
    change(head)
    parts["trajectory.json"] = json.dumps(head).encode()
    with zipfile.ZipFile(path, "w") as new:
        for name, data in parts.items():
            new.writestr(name, data)


def set_in(*places: Any) -> Any:
    *way, last, value = places

    def change(head: Any) -> None:
        for place in way:
            head = head[place]
        head[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_in("frames", 1, "arrays", "denoised", ["|u1", [2, 8, 8, 4]]),
        set_in("frames", 0, "arrays", "denoised", ["|u1", [10**9, 10**9, 8, 3]]),
        set_in("frames", 1, "arrays", "denoised", ["|O", [2, 8, 8, 3]]),
        set_in("frames", 1, "arrays", "other", ["|u1", [2, 8, 8, 3]]),
        set_in("frames", 1, "moment", [1e9, 1, 1, 0.0]),
        set_in("frames", 1, "moment", ["soon", 1, 1, 0.0]),
        set_in("frames", 1, "weights", [[1.0]]),
        set_in("frames", []),
        set_in("frames", 7),
        set_in("states", 0, "arrays", "x", ["<f4", [2, 3, 9, 8]]),
        set_in("states", 0, "numbers", [1, 2, 5.0, 3]),
        set_in("states", 0, "arrays", "memory.evil", ["<f4", [7, 7]]),
        set_in("low", 99.0),
        set_in("recipe", []),
        set_in("version", "1"),
    ],
)
def test_a_description_that_lies_is_refused(saved: Any, change: Any) -> None:
    rewritten(saved[1], change)
    with pytest.raises(PictureError, match=r"run\.traj"):
        open_trajectory(saved[1])


def test_a_file_from_the_future_is_said(saved: Any) -> None:
    rewritten(saved[1], set_in("version", 2))
    with pytest.raises(PictureError, match="newer"):
        open_trajectory(saved[1])


def test_foreign_damaged_and_missing_files_are_said(saved: Any, tmp_path: Path) -> None:
    path = saved[1]
    whole = path.read_bytes()
    with pytest.raises(PictureError, match="no trajectory at"):
        open_trajectory(tmp_path / "none.traj")
    for damaged in (
        b"",
        b"hello",
        whole[: len(whole) // 2],
        whole[:2000] + bytes(500) + whole[2500:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(PictureError, match="damaged"):
            open_trajectory(path)
    np.savez(tmp_path / "foreign.traj.npz", a=np.zeros(3))
    with pytest.raises(PictureError):
        open_trajectory(tmp_path / "foreign.traj.npz")


def test_a_bomb_takes_no_memory(saved: Any, tmp_path: Path) -> None:
    path = saved[1]
    with zipfile.ZipFile(path) as old:
        parts = {n: old.read(n) for n in old.namelist()}
    parts["frames/0/denoised.npy"] = bytes(2**26)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in parts.items():
            new.writestr(name, data)
    del parts
    tracemalloc.start()
    with pytest.raises(PictureError):
        open_trajectory(path)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_an_array_that_would_be_unpickled_is_refused(saved: Any) -> None:
    path = saved[1]
    with zipfile.ZipFile(path) as old:
        parts = {n: old.read(n) for n in old.namelist()}
    evil = io.BytesIO()
    np.lib.format.write_array(evil, np.array([print], object), (1, 0), allow_pickle=True)
    parts["frames/0/denoised.npy"] = evil.getvalue()
    with zipfile.ZipFile(path, "w") as new:
        for name, data in parts.items():
            new.writestr(name, data)
    with pytest.raises(PictureError, match="damaged"):
        open_trajectory(path)


def test_frames_are_kept_as_kept() -> None:
    assert all(isinstance(f, Kept) for f in trajectory_of(events()).frames)
