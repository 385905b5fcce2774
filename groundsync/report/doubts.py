"""What a reader must not take on trust: what was not seen, and what is uncalibrated or assumed."""

from __future__ import annotations

from groundsync.view import FlightView, ProjectView

SMALL_GAP_M2 = 1.0
GAPS_NAMED = 5


def not_seen(view: ProjectView) -> tuple[str, ...]:
    """Returns what nobody has looked at, one sentence each, most important first."""
    said: list[str] = []
    if view.planned is None and view.flights:
        said.append("No plan is known, so gaps in it are not known either.")
    gaps = [g for g in view.gaps if g.geometry.area >= SMALL_GAP_M2]
    if gaps:
        total = sum(g.geometry.area for g in gaps)
        share = f" ({total / view.planned.area:.0%} of the plan)" if view.planned else ""
        said.append(f"{_count(len(gaps), 'gap')} of {_area(total)} together{share}.")
        gaps.sort(key=lambda g: -g.geometry.area)
        for g in gaps[:GAPS_NAMED]:
            at = g.geometry.representative_point()
            said.append(f"{g.reason}: {_area(g.geometry.area)} at x {at.x:.0f}, y {at.y:.0f} m.")
    elif view.planned is not None and view.coverage:
        said.append("Everything that was planned was imaged.")
    for flight in view.flights:
        said += _flight_losses(flight)
    for reason, n in view.left_out:
        said.append(f"{_count(n, 'track')} in no target: {reason}.")
    thin = [one.rank for one in view.targets if one.place.coverage < 0.5]
    if thin:
        ranks = ", ".join(map(str, thin))
        said.append(f"Less than half of the cell around target {ranks} was looked at.")
    return tuple(said)


def uncalibrated(view: ProjectView) -> tuple[str, ...]:
    """Returns what is not calibrated, assumed or doubted, one sentence each."""
    said: list[str] = []
    loose = [one.rank for one in view.targets if not one.target.calibrated]
    if loose:
        ranks = "every target" if len(loose) == len(view.targets) else f"target {_list(loose)}"
        said.append(
            f"The model's probabilities behind {ranks} were not calibrated on held-out data: "
            "they order, they do not count."
        )
    doubted = [one.rank for one in view.targets if one.target.ood]
    if doubted:
        said.append(f"Target {_list(doubted)} looks unlike what the model was trained on.")
    assumed = sorted({one.target.class_name for one in view.targets if not one.expression.source})
    if assumed:
        said.append(
            "How often a deposit, and barren ground, shows "
            f"{_list([c.replace('_', ' ') for c in assumed])} at the surface is assumed, "
            "not measured; so is every posterior that rests on it."
        )
    if view.targets:
        said.append(
            "The standard deviation of a posterior carries the prior's alone; the detectability "
            "and false-alarm rate of the model are taken as exact."
        )
    said += _prior_doubts(view)
    return tuple(said)


def _prior_doubts(view: ProjectView) -> list[str]:
    belief = view.belief
    if belief is None:
        return []
    if belief.assumed:
        return ["There is no prior geology: the same probability was assumed everywhere."]
    facts = belief.evaluation
    said = []
    if (gain := facts.get("information_gain_bits")) is not None and gain <= 0:
        said.append("On held-out ground the prior map is no better than a uniform rate.")
    if (ratio := facts.get("t_over_n")) is not None and not 0.8 <= ratio <= 1.25:
        said.append(
            f"On held-out ground the prior expects {ratio:.2f} × the occurrences there are."
        )
    return said + [f"Prior: {note}." for note in facts.get("notes", [])]


def _flight_losses(flight: FlightView) -> list[str]:
    name = flight.flight_id
    said = []
    if flight.placed < flight.frames:
        said.append(
            f"{name}: {flight.frames - flight.placed} of {flight.frames} frames not placed."
        )
    if flight.scanned < flight.placed:
        lost = flight.placed - flight.scanned
        said.append(f"{name}: {lost} of {flight.placed} placed frames not scanned by the model.")
    said += [f"{name}: {_count(n, 'time')} {reason}." for reason, n in flight.dropped if n]
    return said + [f"{name}: {note}." for note in flight.notes]


def _area(m2: float) -> str:
    return f"{m2 / 1e4:.2f} ha" if m2 >= 1000.0 else f"{m2:.0f} m²"


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def _list(items: list[int] | list[str]) -> str:
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
