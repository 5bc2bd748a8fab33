"""A run's log as it is read again: `log.jsonl` has a line every few seconds and one session for every resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from head3d_core.utils.errors import Head3DError

Event = dict[str, Any]


def read_log(run: Path) -> tuple[list[Event], int]:
    """Events of a run's log in order, and how many lines a kill left half written.

    Args:
        run: the run's folder or its log.jsonl.

    Raises:
        Head3DError: there is no log.
    """
    path = run / "log.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise Head3DError(f"there is no log {path}: give the folder that `train --out` named")
    events, broken = [], 0
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(event, dict) and "event" in event and "images" in event:
            events.append(event)
    return events, broken


def surviving(events: list[Event], kind: str = "progress") -> tuple[list[Event], float]:
    """Events of one kind that the final weights went through, and the seconds of all sessions together.

    A resumed session starts from a snapshot: what an interrupted one did beyond it is gone, though its time was spent.
    """
    kept: list[Event] = []
    sessions = [0.0]
    for event in events:
        if event["event"] == "start":
            kept = [e for e in kept if e["images"] <= event["images"]]
            sessions.append(0.0)
        sessions[-1] = max(sessions[-1], float(event.get("seconds", 0.0)))
        kept += [event] * (event["event"] == kind)
    return kept, sum(sessions)
