"""One target under atheris, for so many seconds. Nothing of the product may be imported before atheris watches its imports."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
MOST_BYTES: Final = 20_000


def main(name: str, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["protocols", "edge_agent", "hub"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = HERE.parent.parent / "out" / "fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    kept = HERE / "crashers" / name
    kept.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-artifact_prefix={kept}/", "-timeout=10", "-rss_limit_mb=2000"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
