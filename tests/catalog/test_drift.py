"""Drift: what was changed since the files were applied, elsewhere than in the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from engine.errors import InvalidDefinition

pytestmark = [pytest.mark.django_db, pytest.mark.database]

SHOP = """
owners:
- {name: growth, email: growth@example.com}
entities:
- {name: customer, join_keys: [{name: customer_id, dtype: string}]}
feature_groups:
- name: purchases
  entity: customer
  status: active
  ttl: 90d
  schedule: {every: 1h}
  features:
  - {name: total, dtype: int64, description: So far.}
  - {name: average, dtype: float64}
feature_services:
- {name: churn, version: 1, status: active, features: ['purchases:total']}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    from catalog import definitions
    from catalog.models import FeatureGroup

    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    definitions.apply([path], by="ada")
    return FeatureGroup.objects.get(name="purchases")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    try:
        call_command("plan", *arguments)
        code = 0
    except SystemExit as ended:
        code = int(str(ended.code))
    said = capsys.readouterr()
    return code, said.out + said.err


def test_what_was_applied_is_kept_per_definition(shop: Any) -> None:
    from catalog.models import AppliedDefinition

    kept = {(one.kind, one.name): one for one in AppliedDefinition.objects.all()}
    assert list(kept) == [
        ("entity", "customer"),
        ("feature group", "purchases"),
        ("feature service", "churn@1"),
        ("owner", "growth"),
    ]
    group = kept["feature group", "purchases"]
    assert "status: active" in group.text
    assert (group.file.endswith("shop.yaml"), group.applied_by, len(group.sha256)) == (True, "ada", 64)
    assert "status: active" in kept["feature service", "churn@1"].text  # the default is kept where it was written


def test_nothing_applied_and_nothing_changed_is_no_drift(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--drift") == (0, "No drift: the catalog is what was last applied.\n")


def test_drift_is_what_an_apply_of_the_same_files_would_take_back(
    shop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from catalog.lifecycle import change_status
    from catalog.models import FeatureService
    from tests.factories import add_feature

    assert run(capsys, "--drift")[0] == 0
    total = shop.features.get(name="total")
    total.description = "Changed in the admin."
    total.save()
    add_feature(shop, "extra", "int64")
    change_status(FeatureService.objects.get(), "deprecated")
    code, said = run(capsys, "--drift")
    assert code == 1
    assert said.splitlines() == [
        "~ feature purchases:total",
        "    description: Changed in the admin. -> So far.",
        "~ feature service churn@1",
        "    status: deprecated -> (default)",
        "- feature purchases:extra",
        "    (apply --prune archives it)",
    ]
    code, said = run(capsys, "--drift", "--json")
    assert (code, len(json.loads(said)["changes"])) == (1, 3)


def test_a_status_that_the_file_leaves_to_the_catalog_is_no_drift(shop: Any) -> None:
    from catalog import definitions
    from catalog.lifecycle import change_status

    change_status(shop.features.get(name="average"), "deprecated", reason="Old.")
    assert definitions.drift().changes == ()


def test_another_apply_replaces_what_it_names_and_keeps_the_rest(shop: Any, tmp_path: Path) -> None:
    from catalog import definitions
    from catalog.models import AppliedDefinition

    path = tmp_path / "owners.yaml"
    path.write_text("owners:\n- {name: growth, email: us@example.com}\n")
    definitions.apply([path])
    assert AppliedDefinition.objects.count() == 4
    assert "us@example.com" in AppliedDefinition.objects.get(kind="owner").text
    assert definitions.drift().changes == ()


def test_a_refused_apply_is_not_remembered(shop: Any, tmp_path: Path) -> None:
    from catalog import definitions
    from catalog.models import AppliedDefinition
    from engine.errors import FeaturehubError

    path = tmp_path / "shop.yaml"
    path.write_text(SHOP.replace("status: active\n  ttl", "status: archived\n  ttl").replace("growth@", "us@"))
    with pytest.raises(FeaturehubError):
        definitions.apply([path])
    assert "growth@example.com" in AppliedDefinition.objects.get(kind="owner").text


def test_what_could_not_be_applied_again_is_told_and_exits_1(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from catalog import definitions

    shop.version = 2
    shop.save()
    with pytest.raises(InvalidDefinition, match="1 problem"):
        definitions.drift()
    code, said = run(capsys, "--drift")
    assert (code, "feature group purchases:" in said, "has version 2 already" in said) == (1, True, True)


def test_files_and_drift_exclude_each_other(tmp_path: Path) -> None:
    from django.core.management import CommandError

    for arguments in ((), ("--drift", "some.yaml")):
        with pytest.raises(CommandError, match="Give files, or --drift"):
            call_command("plan", *arguments)


def test_an_edit_over_http_or_by_a_python_process_is_not_remembered(shop: Any) -> None:
    from catalog import definitions
    from tests.catalog.registry.conftest import holder

    changed = holder("read", "registry").edit("features/purchases/total", {"description": "Over HTTP."})
    assert changed.status == 200
    (change,) = definitions.drift().changes
    assert [str(field) for field in change.fields] == ["description: Over HTTP. -> So far."]
