"""The grid of views that a video is tested on: clips in time × crops in space."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ViewGrid:
    """Numbers the views of a video: `view = temporal * num_crops + spatial`.

    Attributes:
        num_clips: clips along time.
        num_crops: crops of each clip.
    """

    num_clips: int = 1
    num_crops: int = 1

    @property
    def num_views(self) -> int:
        """Clips × crops."""
        return self.num_clips * self.num_crops

    @property
    def clips(self) -> list[tuple[int, int]]:
        """The temporal views (i, n) in the order of their number."""
        return [(i, self.num_clips) for i in range(self.num_clips)]

    def view(self, temporal: int, spatial: int) -> int:
        """Return the number of the view at this place of the grid."""
        return temporal * self.num_crops + spatial

    def split(self, view: int) -> tuple[int, int]:
        """Return the place (temporal, spatial) of a view number."""
        return divmod(view, self.num_crops)
