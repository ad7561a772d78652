# SPDX-License-Identifier: Apache-2.0
"""The WAV file that every conversion results in."""

from __future__ import annotations

import functools
import io
import math
import struct
import wave

__all__ = ["RATE", "SECONDS", "wav_bytes"]

RATE = 48_000
SECONDS = 3
_TONES = (440, 660)
_LOUDNESS = 0.05


@functools.cache
def wav_bytes() -> bytes:
    """A quiet chord of three seconds: 48 kHz, 16 bit, one tone per channel."""
    # Whole-number frequencies repeat every second, so one second is computed and then repeated.
    peak = _LOUDNESS * 32_767
    second = b"".join(
        struct.pack("<2h", *(round(peak * math.sin(2 * math.pi * tone * n / RATE)) for tone in _TONES))
        for n in range(RATE)
    )
    target = io.BytesIO()
    with wave.open(target, "wb") as wav:
        wav.setnchannels(len(_TONES))
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes(second * SECONDS)
    return target.getvalue()
