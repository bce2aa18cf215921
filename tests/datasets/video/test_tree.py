"""Videos below a folder: through links, not in circles, and told where they can't be looked for."""

from __future__ import annotations

import os

from timesformer.datasets.video.tree import videos_below


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "disk" / "in").mkdir(parents=True)
    (tmp_path / "disk" / "in" / "a.mp4").touch()
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "b.mp4").touch()
    (videos / "linked").symlink_to(tmp_path / "disk")
    (videos / "around").symlink_to(".")
    (tmp_path / "disk" / "up").symlink_to(videos)
    (videos / "nowhere").symlink_to("nothing")
    (videos / "itself").symlink_to("itself")
    found = [os.path.relpath(path, videos) for path in videos_below(videos)]
    assert found == ["b.mp4", "linked/in/a.mp4"]
    assert [*videos_below(videos, tmp_path / "disk")] == [str(videos / "b.mp4")]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch, caplog):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.mp4").touch()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [*videos_below(tmp_path)] == [str(tmp_path / "a.mp4")]
    assert "closed: can't be looked into: Permission denied" in caplog.text
