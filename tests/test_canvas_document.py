"""The canvas document: what marks leave, what is told, and that all of it can be undone."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from studio.errors import PictureError
from studio.ui.canvas import brush as brushes
from studio.ui.canvas import marks
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.document import Document
from studio.ui.canvas.history import union, within

HARD = Brush(radius=10, hardness=1.0)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def document(w: int = 300, h: int = 280, **layers: np.ndarray) -> Document:
    return Document.of(noise(h, w, 3), **layers)


def draw(doc: Document, layer: str, brush: Brush, *points: tuple[float, ...]) -> bool:
    stroke = doc.stroke(layer, brush)
    for point in points:
        stroke.to(*point)
    return stroke.end()


def distances(shape: tuple[int, int], x: float, y: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.hypot(rows - y, columns - x)


def state(doc: Document) -> tuple[bytes, ...]:
    return (doc.photo.tobytes(), doc.mask.tobytes(), doc.sketch.tobytes(), repr(doc.box).encode())


# -- strokes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.5, 3.0, 20.0, 75.0])
@pytest.mark.parametrize("place", [(150.0, 140.0), (150.25, 139.75)])
def test_a_hard_dab_is_a_disc_with_an_edge_of_one_pixel(radius, place):
    doc = document()
    draw(doc, "mask", Brush(radius=radius, hardness=1.0), place)
    away = distances(doc.mask.shape, *place)
    slack = 0.36 if radius > 32 else 0.0  # large tips keep to half pixels
    assert (doc.mask[away < radius - 0.5 - slack] == 255).all()
    assert not doc.mask[away > max(radius, 0.5) + 0.5 + slack].any()


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.5, 8.0, 40.0, 200.0])
def test_a_hard_dab_has_the_area_of_its_disc(radius):
    doc = document(420, 420)
    draw(doc, "mask", Brush(radius=radius, hardness=1.0), (210.0, 210.0))
    assert doc.mask.sum() / 255 == pytest.approx(math.pi * radius**2, rel=0.02, abs=0.5)


def test_a_soft_dab_falls_from_its_strength_to_nothing():
    doc = document()
    draw(doc, "mask", Brush(radius=50, hardness=0.2, strength=0.6), (150.5, 140.5))
    row = doc.mask[140, 150:201].astype(int)
    assert row[0] == round(255 * 0.6)
    assert (row[:11] == row[0]).all()
    assert row[50] == 0
    assert (np.diff(row) <= 0).all()


def test_a_stroke_that_crosses_itself_stays_at_its_strength():
    for layer in ("mask", "sketch"):
        doc = document()
        zigzag = [(40.0 + 200 * (i % 2), 40.0 + 4 * i) for i in range(30)]
        draw(doc, layer, Brush(radius=20, hardness=0.5, strength=0.4), *zigzag)
        top = doc.mask if layer == "mask" else doc.sketch[..., 3]
        assert top.max() == round(255 * 0.4)


def test_painting_keeps_the_larger_value_and_erasing_the_smaller():
    doc = document()
    doc.fill_rect("mask", (0, 0, 150, 280), Brush(strength=200 / 255))
    draw(doc, "mask", Brush(radius=30, hardness=1, strength=100 / 255), (150, 140))
    assert doc.mask[140, 140] == 200
    assert doc.mask[140, 160] == 100
    draw(doc, "mask", Brush(radius=30, hardness=1, strength=0.5, erase=True), (150, 140))
    assert doc.mask[140, 140] == 255 - 128
    assert doc.mask[140, 160] == 100
    draw(doc, "mask", Brush(radius=99, hardness=1, erase=True), (150, 140))
    assert not doc.mask[100:180, 100:200].any()


@pytest.mark.parametrize("radius", [0.5, 1.0, 4.0, 30.0, 120.0])
@pytest.mark.parametrize("layer", ["mask", "sketch"])
def test_a_long_straight_line_has_no_gaps_and_straight_edges(radius, layer):
    doc = document(900, 300)
    draw(doc, layer, Brush(radius=radius, hardness=1.0), (-50, 150.5), (950, 150.5))
    line = doc.mask if layer == "mask" else doc.sketch[..., 3]
    widths = line.sum(axis=0) / 255
    assert widths.min() == pytest.approx(2 * radius, abs=1.0)
    assert widths.max() - widths.min() <= 0.75


def test_pressure_narrows_the_line_smoothly_down_to_a_twentieth():
    doc = document(900, 300)
    draw(doc, "mask", Brush(radius=40, hardness=1.0), (50, 150, 0.0), (850, 150, 1.0))
    widths = doc.mask.sum(axis=0)[60:840] / 255
    assert widths[0] == pytest.approx(2 * 40 * 0.06, abs=1.5)
    assert widths[-1] == pytest.approx(80, abs=2)
    assert np.abs(np.diff(widths)).max() < 3


def test_many_short_moves_paint_what_one_long_move_paints():
    short, long = document(), document()
    brush = Brush(radius=12, hardness=0.5, strength=0.7)
    draw(long, "mask", brush, (30, 40), (250, 200))
    draw(short, "mask", brush, *[(30 + 2.2 * i, 40 + 1.6 * i) for i in range(101)])
    assert np.abs(short.mask.astype(int) - long.mask).max() <= 12


@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_sketch_composes_colours_as_over_does(erase, strength):
    """Against the formulas of Porter and Duff 1984, in floating point."""
    given = noise(280, 300, 4, seed=1)
    given[:100, :100] = 0
    given[100:200, :, 3] = 255
    doc = document(sketch=given)
    brush = Brush(60, 0.3, strength, (10, 200, 90), erase)
    draw(doc, "sketch", brush, (60, 60), (200, 180), (100, 200))
    plane = document()
    draw(plane, "mask", Brush(60, 0.3, strength), (60, 60), (200, 180), (100, 200))
    share, below = plane.mask / 255, given[..., 3] / 255
    alpha = below * (1 - share) if erase else share + below * (1 - share)
    assert np.abs(doc.sketch[..., 3] - 255 * alpha).max() <= 1
    if not erase:
        rest = (below * (1 - share))[..., None]
        mixed = share[..., None] * np.array(brush.colour) + rest * given[..., :3]
        expected = mixed / np.maximum(alpha, 1e-9)[..., None]
        shown = alpha > 0
        assert np.abs(doc.sketch[..., :3] - expected)[shown].max() <= 2
    assert (doc.sketch == given)[plane.mask == 0].all()


def test_what_is_erased_leaves_no_colour_behind():
    doc = document()
    doc.fill_rect("sketch", (20, 20, 60, 60), HARD)
    doc.fill_rect("sketch", (0, 0, 300, 280), Brush(erase=True))
    assert not doc.sketch.any()
    assert doc.bounds("sketch") is None


def test_listeners_hear_every_move_with_all_that_changed():
    doc = document(900, 700)
    heard = []
    end = doc.listen(lambda layer, rect: heard.append((layer, rect)))
    stroke = doc.stroke("mask", HARD)
    for x in (100, 130, 700):
        before = doc.mask.copy()
        stroke.to(x, 300)
        layer, (left, top, w, h) = heard[-1]
        changed = before != doc.mask
        assert layer == "mask"
        assert changed[top : top + h, left : left + w].sum() == changed.sum() > 0
    assert within(heard[0][1], (112, 312)) == heard[0][1] >= (88, 288)
    assert len(heard) == 3
    stroke.end()
    end()
    doc.invert_mask()
    assert len(heard) == 3


def test_cancel_takes_a_stroke_back():
    doc = document()
    doc.fill_rect("sketch", (0, 0, 100, 100), HARD)
    before, heard = state(doc), []
    doc.listen(lambda *told: heard.append(told))
    stroke = doc.stroke("sketch", Brush(colour=(1, 2, 3)))
    stroke.to(50, 50)
    stroke.to(90, 90)
    assert state(doc) != before
    stroke.cancel()
    stroke.to(10, 10)
    assert not stroke.end()
    assert state(doc) == before
    assert heard[-1] == ("sketch", union(heard[0][1], heard[1][1]))
    assert doc.history.undo_title == "Rectangle"


@pytest.mark.parametrize(
    ("brush", "points"),
    [
        (HARD, []),
        (HARD, [(-500, 20), (-90, 300)]),
        (HARD, [(math.nan, 20), (math.inf, 0)]),
        (Brush(strength=0), [(20, 20), (90, 90)]),
        (Brush(erase=True), [(20, 20), (90, 90)]),
    ],
)
def test_a_stroke_of_nothing_leaves_no_step(brush, points):
    for layer in ("mask", "sketch"):
        doc = document()
        assert not draw(doc, layer, brush, *points)
        assert doc.history.undo_title == ""
        assert not doc.modified


def test_a_move_from_far_outside_ends_soon_and_paints_the_part_inside():
    doc = document()
    draw(doc, "mask", HARD, (-1e9, 140), (1e9, 140))
    assert (doc.mask[140] == 255).all()


def test_an_undo_during_a_stroke_takes_that_stroke_back():
    doc = document()
    stroke = doc.stroke("mask", HARD)
    stroke.to(50, 50)
    assert doc.modified
    assert doc.history.undo()
    assert not doc.mask.any()
    stroke.to(80, 80)
    assert not doc.mask.any()


# -- fills --------------------------------------------------------------------------------------


def test_a_polygon_covers_its_area_with_a_smooth_edge():
    doc = document()
    points = [(20.0, 20.0), (220.0, 60.0), (120.0, 250.0)]
    doc.fill_polygon("mask", points, HARD)
    doubled = sum(a * d - b * c for (a, b), (c, d) in zip(points, points[1:] + points[:1]))
    assert doc.mask.sum() / 255 == pytest.approx(abs(doubled) / 2, rel=0.01)
    assert len(np.unique(doc.mask)) > 10


def test_a_polygon_far_larger_than_the_picture_fills_it():
    doc = document()
    doc.fill_polygon("mask", [(-1e7, -1e7), (1e7, -1e7), (1e7, 1e7), (-1e7, 1e7)], HARD)
    assert (doc.mask == 255).all()


def test_a_rectangle_is_exact_and_cut_at_the_picture():
    doc = document()
    doc.fill_rect("mask", (-10, 270, 30, 300), Brush(strength=0.5))
    assert doc.bounds("mask") == (0, 270, 20, 10)
    assert (doc.mask[270:, :20] == 128).all()
    doc.fill_rect("mask", (400, 0, 10, 10), HARD)
    assert doc.history.undo_title == "Rectangle"
    assert doc.history.undo()
    assert not doc.history.undo()


@pytest.mark.parametrize("seed", range(6))
def test_flood_fills_what_scipy_says_is_joined(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(700, 900)), 3 + seed)
    values = (smooth > 0).astype(np.uint8) * 100
    photo = np.stack([values, values + 7, values + 9], axis=2)
    doc = Document.of(photo)
    y, x = int(rng.integers(700)), int(rng.integers(900))
    doc.flood("mask", x + 0.5, y + 0.5, HARD, tolerance=24)
    named, _ = ndimage.label(values == values[y, x])
    assert ((doc.mask == 255) == (named == named[y, x])).all()


def test_flood_follows_a_snake_and_beyond_its_first_window():
    photo = np.zeros((1500, 1300, 3), np.uint8)
    photo[1::2] = 255
    photo[1::4, -1] = 0
    photo[3::4, 0] = 0
    doc = Document.of(photo)
    doc.flood("mask", 3, 0, HARD, tolerance=0)
    assert ((doc.mask == 255) == (photo[..., 0] == 0)).all()


def test_flood_compares_each_channel_with_the_point_touched():
    photo = np.full((10, 30, 3), 100, np.uint8)
    photo[:, 10:20, 1] = 124
    photo[:, 20:, 2] = 130
    doc = Document.of(photo)
    doc.flood("sketch", 2, 2, Brush(colour=(9, 8, 7)), tolerance=24)
    assert (doc.sketch[:, :20] == (9, 8, 7, 255)).all()
    assert not doc.sketch[:, 20:].any()
    doc.flood("sketch", 99, 2, HARD)
    assert doc.history.undo_title == "Fill region"


def test_a_region_that_is_too_ragged_is_refused(monkeypatch):
    monkeypatch.setattr(marks, "_MOST_RUNS", 100)
    doc = document()
    before = state(doc)
    with pytest.raises(PictureError, match="ragged"):
        doc.flood("mask", 5, 5, HARD)
    assert state(doc) == before


# -- the mask's verbs ---------------------------------------------------------------------------


@pytest.mark.parametrize("px", [1, 2, 5, 17])
def test_growing_is_dilation_by_a_disc(px):
    given = np.where(noise(120, 130, seed=2) > 253, noise(120, 130, seed=3), 0).astype(np.uint8)
    doc = document(130, 120, mask=given)
    doc.grow_mask(px)
    axis = np.arange(-px, px + 1)
    disc = axis[:, None] ** 2 + axis**2 <= px * px
    expected = ndimage.grey_dilation(given, footprint=disc, mode="constant", cval=0)
    assert (doc.mask == expected).all()
    assert doc.history.undo_title == "Grow mask"


@pytest.mark.parametrize("px", [40, 101, 256])
def test_growing_much_on_a_large_picture_keeps_close_to_the_disc(px, monkeypatch):
    monkeypatch.setattr(marks, "_MOST_WORK", 0)
    given = np.zeros((640, 660), np.uint8)
    given[300, 310] = given[320:330, 330:334] = 255
    doc = document(660, 640, mask=given)
    doc.grow_mask(px)
    away = ndimage.distance_transform_edt(given == 0)
    assert (doc.mask[away < 0.97 * px - 1] == 255).all()
    assert not doc.mask[away > 1.03 * px + 1].any()


@pytest.mark.parametrize("px", [1, 3, 9])
def test_shrinking_is_erosion_that_spares_the_pictures_edge(px):
    given = np.zeros((120, 130), np.uint8)
    given[30:90, :80] = noise(60, 80, seed=4) // 2 + 128
    doc = document(130, 120, mask=given)
    doc.grow_mask(-px)
    axis = np.arange(-px, px + 1)
    disc = axis[:, None] ** 2 + axis**2 <= px * px
    expected = ndimage.grey_erosion(given, footprint=disc, mode="constant", cval=255)
    assert (doc.mask == expected).all()
    assert doc.mask[60, 0]


def test_feathering_is_a_gaussian():
    given = np.zeros((200, 220), np.uint8)
    given[60:140, 70:150] = 255
    doc = document(220, 200, mask=given)
    doc.feather_mask(6)
    expected = ndimage.gaussian_filter(given.astype(float), 6)
    # Pillow's is three boxes in a row.
    assert np.abs(doc.mask - expected).max() < 6


def test_the_other_verbs_of_the_mask():
    alpha = noise(280, 300, seed=5)
    doc = document(alpha=alpha)
    doc.mask_from_alpha()
    assert (doc.mask == 255 - alpha).all()
    doc.threshold_mask()
    assert (doc.mask == np.where(alpha <= 127, 255, 0)).all()
    doc.invert_mask()
    assert (doc.mask == np.where(alpha <= 127, 0, 255)).all()
    doc.set_mask(alpha, "Dropped mask")
    assert doc.history.undo_title == "Dropped mask"
    assert (doc.mask == alpha).all()
    doc.clear("mask")
    assert not doc.mask.any()
    assert doc.bounds("mask") is None


def test_masks_and_pictures_that_do_not_fit_are_refused():
    doc = document()
    with pytest.raises(PictureError, match="300 x 280"):
        doc.set_mask(noise(20, 20))
    with pytest.raises(PictureError, match="transparency"):
        doc.mask_from_alpha()
    with pytest.raises(PictureError):
        doc.accept((0, 0, 10, 10), noise(9, 10, 3))
    with pytest.raises(PictureError):
        doc.paste(noise(9, 10, 3), 0, 0)
    with pytest.raises(PictureError):
        Document.of(noise(9, 10))
    with pytest.raises(PictureError):
        Document.of(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(PictureError, match="million"):
        Document.of(np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)))
    with pytest.raises(PictureError, match="differ"):
        Document.of(noise(9, 10, 3), alpha=noise(9, 9))
    assert not doc.modified


# -- photo, paste, pick, box --------------------------------------------------------------------


def test_accepting_changes_the_photo_alone_and_not_the_callers_array():
    photo = noise(280, 300, 3)
    doc = Document.of(photo)
    doc.fill_rect("mask", (40, 40, 40, 40), HARD)
    kept, mask = photo.copy(), doc.mask.copy()
    new = noise(64, 64, 3, seed=9)
    doc.accept((270, -20, 64, 64), new)
    assert (doc.photo[:44, 270:] == new[20:, :30]).all()
    rest = np.ones((280, 300), bool)
    rest[:44, 270:] = False
    assert (doc.photo == kept)[rest].all()
    assert (photo == kept).all()
    assert (doc.mask == mask).all()
    assert doc.history.undo_title == "Accept candidate"
    assert doc.history.undo()
    assert (doc.photo == kept).all()


def test_views_cannot_be_written_to():
    doc = document(alpha=noise(280, 300))
    for view in (doc.photo, doc.mask, doc.sketch, doc.alpha):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 1


def test_paste_lies_over_the_sketch_as_pillow_composes_it():
    given, pasted = noise(280, 300, 4, seed=6), noise(90, 80, 4, seed=7)
    doc = document(sketch=given)
    doc.paste(pasted, 250, -20)
    below = Image.fromarray(given[:70, 250:])
    above = Image.fromarray(np.ascontiguousarray(pasted[20:, :50]))
    expected = np.asarray(Image.alpha_composite(below, above)).astype(int)
    got = doc.sketch[:70, 250:].astype(int)
    assert np.abs(got[..., 3] - expected[..., 3]).max() <= 1
    # The fainter a colour, the less its value counts.
    apart = np.abs(got[..., :3] - expected[..., :3]) * expected[..., 3:] / 255
    assert apart.max() <= 2
    assert (doc.sketch[70:] == given[70:]).all()


def test_pick_sees_the_photo_under_the_sketch():
    doc = document()
    assert doc.pick(20.7, 30.2) == tuple(doc.photo[30, 20])
    doc.fill_rect("sketch", (0, 0, 50, 50), Brush(colour=(250, 40, 10)))
    assert doc.pick(20, 30) == (250, 40, 10)
    assert doc.pick(-5, 5000) == tuple(doc.photo[279, 0])


def test_the_box_is_cut_at_the_picture_and_can_be_undone():
    doc = document()
    heard = []
    doc.listen(lambda *told: heard.append(told))
    assert doc.box == (0, 0, 300, 280)
    doc.set_box((250, -20, 100, 100))
    assert doc.box == (250, 0, 50, 80)
    doc.set_box((900, 900, 5, 5))
    assert doc.box == (250, 0, 50, 80)
    assert len(heard) == 1
    assert heard[0][0] == "box"
    assert doc.history.undo_title == "Move box"
    doc.history.undo()
    assert doc.box == (0, 0, 300, 280)
    doc.history.redo()
    assert doc.box == (250, 0, 50, 80)


def test_the_box_fits_around_the_mask():
    doc = document(1000, 800)
    doc.fill_rect("mask", (500, 300, 40, 20), HARD)
    assert doc.fit_box(64, 32) == (468, 258, 104, 104)
    assert doc.fit_box(256) == (392, 182, 256, 256)
    doc.clear("mask")
    doc.fill_rect("mask", (0, 780, 20, 20), HARD)
    assert doc.fit_box(256) == (0, 544, 256, 256)
    doc.fill_rect("mask", (0, 10, 20, 780), HARD)
    assert doc.fit_box(256) == (0, 0, 800, 800)


def test_the_box_fits_where_the_picture_or_the_mask_is_small():
    doc = document(100, 300)
    doc.set_box((0, 0, 100, 100))
    assert doc.fit_box(256) == (-78, 0, 256, 256)
    assert doc.fit_box(64) == (18, 18, 64, 64)
    doc.fill_rect("mask", (40, 20, 10, 260), HARD)
    assert doc.fit_box(64) == (-80, 20, 260, 260)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_those_of_a_full_look(seed):
    rng = random.Random(seed)
    doc = document(700, 600)
    for _ in range(25):
        x, y, w, h = (rng.randrange(600) for _ in range(4))
        brush = Brush(rng.uniform(1, 90), rng.random(), 1.0, erase=rng.random() < 0.4)
        layer = rng.choice(["mask", "sketch"])
        if rng.random() < 0.5:
            doc.fill_rect(layer, (x, y, w, h), brush)
        else:
            draw(doc, layer, brush, (x, y), (w, h))
        plane = doc.mask if layer == "mask" else doc.sketch[..., 3]
        assert doc.bounds(layer) == marks.box_of(plane)
        if rng.random() < 0.2:
            doc.history.undo()


# -- history ------------------------------------------------------------------------------------


def anything(doc: Document, rng: random.Random) -> None:
    """One random verb."""
    w, h = doc.size
    layer = rng.choice(["mask", "sketch"])
    erase = rng.random() < 0.3
    brush = Brush(
        rng.uniform(0.5, 60), rng.random(), rng.random(), (rng.randrange(256), 7, 9), erase
    )
    x, y = rng.uniform(-30, w + 30), rng.uniform(-30, h + 30)
    points = [(rng.uniform(-30, w + 30), rng.uniform(-30, h + 30)) for _ in range(5)]
    rect = (int(x), int(y), rng.randrange(1, w), rng.randrange(1, h))
    seed = rng.randrange(99)
    rng.choice(
        [
            lambda: draw(doc, layer, brush, *points),
            lambda: draw(doc, layer, brush, *points),
            lambda: doc.fill_polygon(layer, points, brush),
            lambda: doc.fill_rect(layer, rect, brush),
            lambda: doc.flood(layer, x, y, brush, tolerance=90),
            doc.invert_mask,
            lambda: doc.clear(layer),
            lambda: doc.grow_mask(rng.randrange(-6, 7)),
            lambda: doc.feather_mask(rng.uniform(0, 6)),
            doc.threshold_mask,
            doc.mask_from_alpha,
            lambda: doc.set_mask(noise(h, w, seed=seed), "Mask"),
            lambda: doc.accept(rect, noise(rect[3], rect[2], 3, seed=seed)),
            lambda: doc.paste(noise(40, 50, 4, seed=seed), int(x), int(y)),
            lambda: doc.set_box(rect),
            lambda: doc.history.settle(0.002),
        ]
    )()


@pytest.mark.parametrize("seed", range(8))
def test_undoing_all_is_the_start_and_redoing_all_is_the_end(seed):
    rng = random.Random(seed)
    doc = document(300, 280, alpha=noise(280, 300, seed=8))
    shadow = {"photo": doc.photo.copy(), "mask": doc.mask.copy(), "sketch": doc.sketch.copy()}

    def follow(layer: str, rect: tuple[int, int, int, int]) -> None:
        if layer != "box":
            x, y, w, h = rect
            assert within(rect, doc.size) == rect
            part = slice(y, y + h), slice(x, x + w)
            shadow[layer][part] = getattr(doc, layer)[part]

    doc.listen(follow)
    states = {doc.history.state: state(doc)}
    for _ in range(30):
        anything(doc, rng)
        states.setdefault(doc.history.state, state(doc))
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            doc.history.undo()
            assert state(doc) == states[doc.history.state]
        assert all((shadow[layer] == getattr(doc, layer)).all() for layer in shadow)
    while doc.history.redo():
        pass
    end = state(doc)
    while doc.history.undo():
        assert state(doc) == states[doc.history.state]
    assert doc.history.state == 0
    assert not doc.modified
    assert doc.history.undo_title == ""
    while doc.history.redo():
        assert state(doc) == states[doc.history.state]
    assert state(doc) == end
    assert all((shadow[layer] == getattr(doc, layer)).all() for layer in shadow)


def test_titles_name_what_comes_next():
    doc = document()
    draw(doc, "mask", HARD, (20, 20))
    draw(doc, "mask", Brush(erase=True), (20, 20))
    assert (doc.history.undo_title, doc.history.redo_title) == ("Erase", "")
    doc.history.undo()
    assert (doc.history.undo_title, doc.history.redo_title) == ("Brush stroke", "Erase")
    doc.invert_mask()
    assert (doc.history.undo_title, doc.history.redo_title) == ("Invert mask", "")


def test_clean_is_the_marked_state_however_it_is_reached():
    doc = document()
    doc.invert_mask()
    doc.history.mark()
    assert not doc.modified
    doc.history.undo()
    assert doc.modified
    doc.history.redo()
    assert not doc.modified
    doc.history.undo()
    doc.fill_rect("mask", (0, 0, 5, 5), HARD)
    doc.history.undo()
    assert doc.modified


def test_the_budget_holds_and_the_oldest_go_first():
    doc = document(600, 600)
    doc.history._budget = 700_000
    for seed in range(12):
        doc.accept((0, 0, 300, 300), noise(300, 300, 3, seed=seed))
        assert doc.history.size <= 700_000
    last = doc.photo.copy()
    undone = 0
    while doc.history.undo():
        undone += 1
    assert 1 <= undone < 12
    assert (doc.photo[:300, :300] == noise(300, 300, 3, seed=11 - undone)).all()
    assert doc.history.state != 0
    while doc.history.redo():
        pass
    assert (doc.photo == last).all()


def test_a_step_larger_than_the_budget_can_still_be_undone():
    doc = document()
    doc.history._budget = 1000
    before = doc.photo.copy()
    doc.accept((0, 0, 300, 280), noise(280, 300, 3, seed=1))
    doc.history.undo()
    assert (doc.photo == before).all()


def test_settling_compresses_and_changes_nothing():
    doc = document(600, 600)
    for x in range(60, 540, 80):
        draw(doc, "sketch", Brush(radius=50), (x, x))
    raw, before = doc.history.size, state(doc)
    assert not doc.history.settle(10)
    assert doc.history.size < raw / 10
    assert state(doc) == before
    while doc.history.undo():
        pass
    assert not doc.sketch.any()


def test_a_verb_that_fails_leaves_no_trace(monkeypatch):
    doc = document()
    doc.fill_rect("mask", (0, 0, 50, 50), HARD)
    before = state(doc)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(marks, "dilated", fail)
    with pytest.raises(MemoryError):
        doc.grow_mask(3)
    assert state(doc) == before
    assert doc.history.undo_title == "Rectangle"


def test_tips_under_pressure_stay_within_their_memory(monkeypatch):
    monkeypatch.setattr(brushes, "_HELD", 10_000)
    doc = document()
    draw(doc, "mask", Brush(radius=60), *[(5 * i, 5 * i, i / 50) for i in range(50)])
    assert doc.mask[200, 200] == 255


def test_small_pictures_are_documents_too():
    doc = Document.of(noise(1, 1, 3))
    draw(doc, "sketch", Brush(radius=2048), (0, 0), (1, 1))
    doc.invert_mask()
    doc.grow_mask(-256)
    doc.feather_mask(256)
    doc.flood("mask", 0, 0, HARD)
    assert doc.bounds("sketch") == (0, 0, 1, 1)
