"""The parameters of a query: known ones, each at most once."""

from __future__ import annotations

from rest_framework.request import Request

from engine.errors import InvalidInput, Problem, near_names


def parameters(request: Request, *known: str) -> dict[str, str]:
    """The query's parameters; raises InvalidInput for one that is not known or stands twice."""
    given = request.query_params
    problems = [Problem(name, "unknown parameter", near_names(name, known)) for name in given if name not in known]
    problems += [Problem(name, "stands more than once") for name in given if len(given.getlist(name)) > 1]
    if problems:
        raise InvalidInput(f"The query's parameters are {', '.join(known)}.", problems)
    return {name: str(given[name]) for name in given}
