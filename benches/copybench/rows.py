"""Owns the list of the rows: which image goes over which transport onto which target."""
import dataclasses
import fnmatch

RATE = 100 << 20  # bytes a second for each connection of the row `rate`


@dataclasses.dataclass(frozen=True)
class Row:
    """`transport` is nbd or file, `target` is file or block; `filters` and `settings` go to nbdkit."""

    transport: str
    target: str
    image: str
    filters: tuple = ()
    settings: tuple = ()
    label: str = ""

    @property
    def name(self):
        return f"{self.transport}-{self.target}-{self.label or self.image}"

    @property
    def plain(self):
        """Whether the server delays nothing."""
        return not self.filters


def every_row():
    rows = [
        Row(transport, target, image)
        for transport, target in (("nbd", "file"), ("nbd", "block"), ("file", "file"))
        for image in ("dense", "half", "zero", "frag")
    ]
    rows.append(Row("nbd", "file", "four"))
    rows.append(Row("nbd", "file", "dense", ("delay",), ("delay-read=20ms",), "delay"))
    # The filter counts in bits.
    rows.append(Row("nbd", "file", "dense", ("rate",), (f"connection-rate={RATE * 8}",), "rate"))
    return rows


def chosen(globs):
    """The rows whose name fits one of the globs; all of them without any."""
    return [row for row in every_row() if not globs or any(fnmatch.fnmatch(row.name, glob) for glob in globs)]
