"""`score-studio folder`: every file with what it is, for people and for programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from studio.cli import main


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (80, 120, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "deep" / "turned.jpg", exif=exif)
    Image.new("L", (20, 20), 90).save(folder / "dot\n.png")
    (folder / "broken.png").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    return folder


def test_a_program_gets_every_file(place, capsys):
    assert main(["folder", str(place), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    files = {f.pop("path"): f for f in found["files"]}
    assert files["deep/turned.jpg"] == {
        "result": "image",
        "reason": "",
        "size": [80, 120],
        "flags": [],
        "twin": "",
    }
    assert files["broken.png"]["result"] == "error"
    assert files["broken.png"]["reason"] == "not a picture"
    assert files[".hidden.png"]["result"] == "ignore"
    assert files["dot\n.png"]["flags"] == ["small", "grey", "flat"]
    assert (found["images"], found["errors"], found["ignored"]) == (2, 1, 1)


def test_a_person_gets_a_line_for_every_file_and_a_sum(place, capsys):
    assert main(["folder", str(place), "--size", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert any("80 × 120" in line and "deep/turned.jpg" in line for line in lines)
    assert any("dot\\n.png" in line and "(grey, of one colour)" in line for line in lines)
    assert lines[4] == "2 pictures, 1 cannot be read, 1 passed over"


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_pictures_is_said(tmp_path, capsys, made):
    place = tmp_path / "place"
    if made:
        place.mkdir()
        assert main(["folder", str(place)]) == 0
        assert "no picture in" in capsys.readouterr().out
    else:
        assert main(["folder", str(place)]) == 2
        assert "There is no folder at" in capsys.readouterr().err


def test_what_was_seen_is_looked_at_again_only_if_asked(place, capsys):
    main(["folder", str(place)])
    first = capsys.readouterr().out
    main(["folder", str(place)])
    main(["folder", str(place), "--fresh"])
    assert capsys.readouterr().out == first * 2
