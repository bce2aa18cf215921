"""What became of every weight that was loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight; names are those of the `VisionTransformer`, or of other models.

    A weight of the model is in exactly one of `loaded`, `resized`, `copied`, `zeroed`, `missing`.

    Attributes:
        source: what the weights were read from.
        loaded: taken as they are.
        resized: taken, and fitted to another size.
        copied: made from other weights of the file (temporal from spatial attention).
        zeroed: not in an image model, and set to zero so that training starts there.
        missing: not in the file and left as initialised (the head, where the file has none or one
            for other classes; time_embed that starts as sines; CLS, where the file's model pools
            instead; what stands around the image part of a model).
        unexpected: in the file, with no place in the model (a head for other classes; CLS and its
            position, for a model without).
        ignored: in the file, and nothing that a video model needs (pre_logits, counters).
    """

    source: str = ""
    loaded: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    zeroed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line of counts, with names where they are few."""
        parts = [f"loaded {len(self.loaded)} weights from {self.source}"]
        for what in fields(self)[2:]:
            if names := getattr(self, what.name):
                shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
                parts.append(f"{what.name} {len(names)} ({shown})")
        return "; ".join(parts)
