"""The newest rows of a group, and the newest values of one feature."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from catalog.access import AnyCaller
from catalog.models import Feature, FeatureGroup
from catalog.pages.viewing import page
from catalog.registry.kinds import FEATURE_GROUPS, FEATURES, find
from catalog.schemas import request_needs
from engine.errors import InvalidInput
from serving import samples
from serving.pages.showing import answer

#: Beyond this many characters the rows are a file to download, and do not stand in the page a second time.
COPIED_AT_MOST = 100_000


@page
def of_group(request: HttpRequest, caller: AnyCaller, group: str) -> HttpResponse:
    found: FeatureGroup = find(FEATURE_GROUPS, [group], caller)
    return _answer(request, caller, found, found)


@page
def of_feature(request: HttpRequest, caller: AnyCaller, group: str, name: str) -> HttpResponse:
    found: Feature = find(FEATURES, [group, name], caller)
    return _answer(request, caller, found.group, found)


def _answer(
    request: HttpRequest, caller: AnyCaller, group: FeatureGroup, about: Feature | FeatureGroup
) -> HttpResponse:
    feature = about.name if isinstance(about, Feature) else ""
    computed = bool(feature) and feature in request_needs(group)
    sample = samples.newest(group, caller, feature=feature)
    text = sample.as_csv()
    if _format(request) == "csv":
        name = f"{group.name}.{feature}" if feature else group.name
        headers = {"Content-Disposition": f'attachment; filename="{name}.newest.csv"', "Cache-Control": "no-store"}
        return HttpResponse(text, content_type="text/csv; charset=utf-8", headers=headers)
    context = {
        "sample": sample,
        "rows_at_most": samples.ROWS,
        "group": group,
        "feature": feature,
        "is_computed": computed,
        "csv": text if len(text) <= COPIED_AT_MOST else "",
        "csv_address": f"{request.path}?format=csv",
    }
    title = f"Newest values of {feature}" if feature else f"Newest rows of {group.name}"
    here = "catalog-features" if feature else "catalog-groups"
    response = answer(request, caller, "samples", context, title=title, about=about, here=here)
    response.headers["Cache-Control"] = "private, no-store"
    return response


def _format(request: HttpRequest) -> str:
    asked = request.GET.get("format", "html")
    if asked not in ("html", "csv"):
        raise InvalidInput("format is csv, or left out.")
    return asked
