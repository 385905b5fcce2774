"""Live cameras: a folder that fills, and OpenCV."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from gossan.errors import SettingsError
from onboard.sources.camera import FolderCamera, OpenCvCamera, encoded, open_camera


def write(folder, t_ns: int, value: int = 0) -> None:
    image = np.full((8, 8, 3), value, np.uint8)
    cv2.imwrite(str(folder / f"cam_{t_ns}.jpg"), image)


def take(camera, n: int) -> list:
    stop, found = threading.Event(), []
    threading.Timer(10.0, stop.set).start()
    for captured in camera.captures(stop):
        found.append(captured)
        if len(found) == n:
            stop.set()
    return found


def test_folder_gives_frames_in_order_of_time_once(tmp_path):
    for t in (30, 4, 100):
        write(tmp_path, t)
    (tmp_path / ".cam_5.jpg.part").write_bytes(b"x")
    (tmp_path / "note.txt").write_text("x")
    camera = FolderCamera(tmp_path)
    found = take(camera, 3)
    assert [c.frame.t_mono_ns for c in found] == [4, 30, 100]
    assert found[0].encoded == (tmp_path / "cam_4.jpg").read_bytes()
    write(tmp_path, 200)
    assert [c.frame.name for c in take(camera, 1)] == ["cam_200.jpg"]


def test_folder_may_appear_later_and_rate_is_kept(tmp_path):
    folder = tmp_path / "later"
    camera = FolderCamera(folder, rate_hz=2.0)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    assert list(camera.captures(stop)) == []
    folder.mkdir()
    for i in range(10):
        write(folder, i * 100_000_000)
    stamps = [c.frame.t_mono_ns for c in take(camera, 2)]
    assert stamps == [0, 500_000_000]


def test_opencv_reads_a_video_in_rgb_and_says_when_it_ends(tmp_path):
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.dstack([np.full((48, 64), v, np.uint8) for v in (0, 0, 200)]))
    writer.release()
    camera = OpenCvCamera(str(path))
    found = take(camera, 3)
    pixels = found[0].frame.pixels
    assert pixels.shape == (48, 64, 3)
    assert pixels[20, 20, 0] > 150 > pixels[20, 20, 2]
    stamps = [c.frame.t_mono_ns for c in found]
    assert stamps == sorted(stamps)
    back = cv2.imdecode(np.frombuffer(encoded(found[0], 92), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert abs(int(back[20, 20, 0]) - int(pixels[20, 20, 0])) < 6


def test_a_missing_camera_is_tried_again_not_raised():
    camera = OpenCvCamera("/nowhere/video99.avi")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert list(camera.captures(stop)) == []
    assert camera.failures >= 1


def test_no_source_is_a_settings_error():
    with pytest.raises(SettingsError):
        open_camera("")
    assert isinstance(open_camera("folder:/x"), FolderCamera)
    assert isinstance(open_camera("rtsp://host/x"), OpenCvCamera)
