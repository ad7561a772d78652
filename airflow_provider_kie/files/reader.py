# SPDX-License-Identifier: Apache-2.0
"""Reads a file while its bytes arrive: what it is, and whether it is whole as far as it tells."""

from __future__ import annotations

from airflow_provider_kie.exceptions import KieWrongFileError
from airflow_provider_kie.files.riff import WavHeader, WavReader, shown
from airflow_provider_kie.media import ENOUGH, WAV, Media, find_media, media_of, no_file

__all__ = ["MediaReader", "WavOnlyReader"]


class MediaReader:
    """
    Reads any file while its bytes arrive: recognizes it by its first ones, and reads a WAV file through to its end.

    :param media_type: what the host calls it.
    :param name: the last part of its link.
    """

    def __init__(self, media_type: str = "", name: str = "") -> None:
        self._named = media_type, name
        self._start = b""
        self._wav: WavReader | None = None
        self._unknown = False
        #: None until enough has come.
        self.media: Media | None = None

    @property
    def header(self) -> WavHeader | None:
        """The header of a WAV file."""
        return self._wav.header if self._wav else None

    @property
    def recognized(self) -> bool:
        """Whether the file proved to be of its kind, so that what is wrong with it is damage."""
        return self._wav.header is not None if self._wav else self.media is not None

    @property
    def says_where_it_ends(self) -> bool:
        """Whether the file itself tells its length, as only the header of a WAV file does."""
        return self._wav is not None

    @property
    def length_is_open(self) -> bool:
        """Whether a WAV header leaves open how long the audio is."""
        return self._wav is not None and self._wav.length_is_open

    @property
    def oddities(self) -> list[str]:
        """What is odd about a complete file, each as the end of a sentence."""
        unknown = (
            [f"its first bytes are of no known kind, so it is stored as {self.media and self.media.media_type}"]
            if self._unknown
            else []
        )
        return self._wav.oddities if self._wav else unknown

    def feed(self, piece: bytes) -> None:
        """
        Read the next bytes.

        :raises KieWrongFileError: they are of a web page or of an error, or of no WAV file although they begin as one.
        """
        if self.media is None:
            self._start += piece
            if len(self._start) >= ENOUGH:
                self._recognize()
        elif self._wav:
            self._wav.feed(piece)

    def finish(self, total: int, *, length_known: bool) -> WavHeader | None:
        """
        Check the whole file, once its last byte has come.

        :param total: the bytes that came.
        :param length_known: whether the host announced so many.
        :return: the header of a WAV file.
        :raises KieWrongFileError: as :meth:`feed`, or the file is empty.
        :raises KieDownloadError: audio of a WAV file is missing.
        """
        if self.media is None:
            self._recognize()
        return self._wav.finish(total, length_known=length_known) if self._wav else None

    def _recognize(self) -> None:
        start = self._start[:ENOUGH]
        if wrong := no_file(start, self._named[0]):
            raise KieWrongFileError(f"What came {wrong}; {shown(start)}")
        self._unknown = find_media(start) is None
        self.media = media_of(start, *self._named)
        if self.media is WAV:
            self._wav = WavReader()
            self._wav.feed(self._start)
        self._start = b""


class WavOnlyReader(MediaReader):
    """
    Reads a WAV file, and refuses anything else from its first byte on.

    :param media_type: what the host calls it; not used.
    :param name: the last part of its link; not used.
    """

    def __init__(self, media_type: str = "", name: str = "") -> None:
        super().__init__(media_type, name)
        self.media = WAV
        self._wav = WavReader()
