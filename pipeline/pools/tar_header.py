"""Headers of foreign tars, with limits."""

from __future__ import annotations

import tarfile

_MAX_NAME = 1 << 14  # bytes; tarfile takes quadratic time for longer pax headers
_NAME_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class CheckedHeader(tarfile.TarInfo):
    """A tar header that refuses sizes that tarfile cannot handle, before tarfile reads that many bytes."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _NAME_HEADERS and self.size > _MAX_NAME):
            raise tarfile.ReadError(f"a header that claims {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]
