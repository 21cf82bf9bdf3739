"""Owns the comparison of the copies, and keeping the disks in the page cache where they are ours."""
import hashlib

from copybench import images, measure

from . import lines


def copies(folder, count):
    return [folder / lines.target(number) for number in range(count)]


class WithDisks:
    """Copies are compared with the disks, which are files of this machine."""

    def __init__(self, folder, disks):
        self.folder, self.disks = folder, disks

    def warm(self, count):
        for path in self.disks[:count]:
            images.warm(path)

    def check(self, count):
        """The size of the copies together."""
        measure.compare(self.disks[:count], [str(path) for path in copies(self.folder, count)])
        return sum(path.stat().st_size for path in self.disks[:count])


class WithEachOther:
    """Only the server has the disks: every copy must be as the first one."""

    def __init__(self, folder):
        self.folder, self.first = folder, {}

    def warm(self, count):
        pass

    def check(self, count):
        found = [digest(path) for path in copies(self.folder, count)]
        for number, one in enumerate(found):
            if self.first.setdefault(number, one) != one:
                raise measure.Failed(f"disk {number + 1}: this copy differs from the first one; is the VM off?")
        return sum(path.stat().st_size for path in copies(self.folder, count))


def digest(path):
    with path.open("rb") as copy:
        return hashlib.file_digest(copy, "sha256").hexdigest()
