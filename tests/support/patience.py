"""How long a test waits for what must come by itself.

A machine that runs tests has other things to do, and is sometimes ten times slower than this one: how long something takes is no promise of
the product, that it comes is. So the bound is generous, and only how long a failure takes depends on it. What must *not* come is waited for
with a short bound of the test's own.
"""

from __future__ import annotations

from typing import Final

WITHIN_S: Final = 150.0
"""for anything that must happen: a start, a message, a page, a command's end"""
END_S: Final = 90.0
"""for a process to end when asked; systemd waits as long"""
ANSWER_S: Final = 60.0
"""for an answer to one request to a server that runs"""
