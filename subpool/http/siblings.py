"""What several server processes of one guard say, as one server's word. Pure: answers (see `guard.relay`) in, data out.

Each process has a place, from 1 to `processes`. Of two that have one place, the one that goes and the one that comes,
the one that serves is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_FIRST: Final = {"ready": 0, "starting": 1, "draining": 2}

Told = dict[str, Any]


def shown(told: Sequence[Told]) -> list[Told]:
    """One answer of each place, in their order."""
    places: dict[int, Told] = {}
    for answer in sorted(told, key=lambda one: (_FIRST[one["state"]], -one["pid"])):
        places.setdefault(answer["place"], answer)
    return [places[place] for place in sorted(places)]


def together(told: Sequence[Told], processes: int, guard: int | None, uptime: float) -> dict[str, Any]:
    """The status of all as one: numbers are sums, workers have their `process`. Under `each`: what each said itself.

    Ready is who has all its processes ready. With some of them it is degraded.
    """
    there = shown(told)
    each = {answer["place"]: answer["value"] for answer in there if answer.get("value")}
    states = [state_of(answer) for answer in there] + ["starting"] * (processes - len(there))
    state = states[0] if len(set(states)) == 1 else "degraded"
    first: dict[str, Any] = next(iter(each.values()), {})
    return {
        "version": first.get("version"),
        "python": first.get("python"),
        "uptime": round(uptime, 3),
        "pid": guard,
        "guard": guard,
        "state": state,
        "addresses": next((one["addresses"] for one in each.values() if one["addresses"]), []),
        "connections": sum(one["connections"] for one in each.values()),
        "requests": sum(one["requests"] for one in each.values()),
        "processes": [
            {
                "process": answer["place"],
                "pid": answer["pid"],
                "state": state_of(answer),
                **{key: answer["value"][key] for key in ("uptime", "connections", "requests") if answer.get("value")},
            }
            for answer in there
        ],
        "services": _services([one["services"] for one in each.values() if one.get("services")]),
        "pools": _pools(each),
        "each": each,
    }


def state_of(answer: Told) -> str:
    """Of one process: starting, ready, draining, or silent, where it hangs."""
    if answer.get("value"):
        return str(answer["value"]["state"])
    return "silent" if "error" in answer else str(answer["state"])


def _pools(each: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for place, status in each.items():
        for number, pool in enumerate(status["pools"]):
            workers = [{**worker, "process": place} for worker in pool["workers"]]
            if number == len(found):
                found.append({**pool, "workers": workers})
                continue
            total = found[number]
            total["workers"] += workers
            for key, value in pool.items():
                if isinstance(value, int):
                    total[key] += value
    return found


def _services(each: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Functions and topics of all; None where nobody uses any. The helper is the first, with the restarts of all."""
    if not each:
        return None
    total = dict(each[0])
    for key, value in total.items():
        if type(value) is int:
            total[key] = sum(one[key] for one in each)
    if helpers := [one["helper"] for one in each if one["helper"]]:
        total["helper"] = {**helpers[0], "restarts": sum(one["restarts"] for one in helpers)}
    if buses := [one["bus"] for one in each if one["bus"]]:
        total["bus"] = {
            "up": all(one["up"] for one in buses),
            **{key: sum(one[key] for one in buses) for key in ("waiting", "dropped")},
        }
    if nodes := [one["node"] for one in each if one["node"]]:
        total["node"] = {
            "name": ", ".join(sorted({one["name"] for one in nodes})),
            "up": all(one["up"] for one in nodes),
            **{key: sum(one[key] for one in nodes) for key in ("asked", "taken")},
        }
    return total


def wrong(told: Sequence[Told]) -> str | None:
    """What went wrong where, if anything did."""
    errors = [(answer["pid"], answer["error"]) for answer in told if "error" in answer]
    if not errors:
        return None
    if len(errors) == len(told) and len({error for _, error in errors}) == 1:
        return str(errors[0][1])
    return "; ".join(f"server process {pid}: {error}" for pid, error in errors)
