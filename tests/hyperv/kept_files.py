"""Files that can be put back as they were, for what must not fail half-way."""
import pathlib


class KeptFiles:
    """What some files hold now.

    :param paths: the files, whether they exist or not
    :raises OSError: one cannot be read
    """

    def __init__(self, paths):
        self._contents = {path: path.read_bytes() if path.exists() else None
                          for path in map(pathlib.Path, paths)}

    def put_back(self):
        """Undo what became of them since.

        :raises OSError: one cannot be written
        """
        for path, contents in self._contents.items():
            if contents is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != contents:
                path.write_bytes(contents)
