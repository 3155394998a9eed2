"""Features that are computed on request: online, for training, and by plain Python they have the same values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from engine.errors import InvalidInput
from tests.serving.conftest import LAST_YEAR, YESTERDAY, Hub, push_row
from tests.serving.random_expressions import (
    BOTH_SUMMED,
    EXPRESSIONS,
    FLOAT_VALUES,
    INTEGER_VALUES,
    MAX,
    Expression,
    answer_of,
)
from tests.serving.test_commands import run
from tests.serving.test_entity_vector import ALL_OF_C1
from tests.serving.test_entity_vector import answer_of as json_of
from tests.serving.test_statuses import row_of  # noqa: F401  a fixture
from tests.serving.test_training import build, spine_of
from tests.serving.test_vectors import calls

GROUP = "customer_purchases"
THREE = ["C1", "C2", "C3", "nobody"]


def define(inputs: dict[str, str], features: dict[str, tuple[str, str]], group: str = GROUP) -> None:
    """Give a group request inputs, and features as (dtype, expression)."""
    from catalog import snapshot
    from catalog.models import FeatureGroup
    from tests.factories import add_feature

    row = FeatureGroup.objects.get(name=group)
    for name, dtype in inputs.items():
        row.request_inputs.create(name=name, dtype=dtype)
    for name, (dtype, expression) in features.items():
        add_feature(row, name, dtype, expression=expression).full_clean()
    snapshot.forget()


@pytest.fixture
def cart(hub: Hub) -> Hub:
    """cart_ratio reads a request input and a stored feature, is_large reads cart_ratio, cart_cents nothing stored."""
    define(
        {"cart_value": "float64", "cart_items": "int64"},
        {
            "cart_ratio": ("float64", "cart_value / average"),
            "is_large": ("bool", "COALESCE(cart_ratio, 0) > 2 AND cart_items > 1"),
            "cart_cents": ("int64", "CAST(cart_value * 100 AS BIGINT) * cart_items"),
        },
    )
    return hub


def ask(hub: Hub, *features: str, request: Any, customers: list[str] | None = None, status: int = 200) -> Any:
    customers = ["C1"] * len(next(iter(request.values()), [])) if customers is None else customers
    body = {"features": list(features), "entities": {"customer_id": customers}, "include": ["statuses"]}
    return json_of(hub.vectors(**body, request=request), status)


# --- One definition, one computation.


#: What the customers of the group `carts` have; `old` has it beyond the TTL, and `absent` has nothing.
STORED: dict[str, tuple[int | None, float | None]] = {
    **{"zero": (0, 0.0), "small": (-1, 0.5), "large": (MAX, 1e308), "least": (-MAX - 1, 5e-324)},
    **{"half": (2**53 + 1, None), "other": (None, -3.0), "null": (None, None), "old": (1, 1.0)},
}


@pytest.fixture
def carts(hub: Hub) -> None:
    """A group with n (int64) and x (float64), and the request inputs k and c of these dtypes."""
    from catalog.models import FeatureGroup
    from tests.serving.conftest import make_group

    make_group("carts", "customer", {"n": "int64", "x": "float64"})
    FeatureGroup.objects.filter(name="carts").update(ttl=timedelta(days=90))
    define({"k": "int64", "c": "float64"}, {"both": ("float64", "k + c")}, group="carts")
    for customer, (n, x) in STORED.items():
        push_row("carts", LAST_YEAR if customer == "old" else YESTERDAY, customer_id=customer, n=n, x=x)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    expressions=st.lists(EXPRESSIONS, min_size=1, max_size=4),
    asked=st.lists(
        st.tuples(st.sampled_from([*STORED, "absent"]), INTEGER_VALUES, FLOAT_VALUES), min_size=1, max_size=6
    ),
)
def test_online_and_training_give_what_the_expression_means_for_each_row(
    carts: None,
    expressions: list[tuple[str, Expression]],
    asked: list[tuple[str, int | None, float | None]],
) -> None:
    from django.db import transaction

    with transaction.atomic():
        check_agreement(expressions, asked)
        transaction.set_rollback(True)


def check_agreement(
    expressions: list[tuple[str, Expression]], asked: list[tuple[str, int | None, float | None]]
) -> None:
    """All rows at once, each alone, as a spine, and by plain Python; `both` reads whatever the others do not."""
    from serving import vectors

    features = {f"f{number}": (dtype, part.text) for number, (dtype, part) in enumerate(expressions)}
    define({}, features, group="carts")
    names = ["both", *features]
    parts = [BOTH_SUMMED, *(part for _, part in expressions)]
    known = {who: (None, None) if who == "old" else values for who, values in STORED.items()}
    rows = [dict(zip("nxkc", (*known.get(who, (None, None)), k, c), strict=True)) for who, k, c in asked]
    wanted = told([[answer_of(part, row) for part in parts] for row in rows])

    now = datetime.now(UTC)
    plan = vectors.of_features([f"carts:{name}" for name in names])

    def read(of: list[tuple[str, int | None, float | None]]) -> list[list[tuple[Any, str]]]:
        who, k, c = ([*column] for column in zip(*of, strict=True))
        now_us = round(now.timestamp() * 1_000_000)
        return pairs(vectors.read(plan, {"customer_id": who}, request={"k": k, "c": c}, now_us=now_us))

    assert told(read(asked)) == wanted
    assert told([read([one])[0] for one in asked]) == wanted
    sent = {"k": pa.array([k for _, k, _ in asked], pa.int64()), "c": pa.array([c for _, _, c in asked], pa.float64())}
    table = build(
        [f"carts:{name}" for name in names], spine_of(*((who, now) for who, _, _ in asked), **sent), statuses=True
    )
    assert told([[(row[name], row[f"{name}__status"]) for name in names] for row in table.to_pylist()]) == wanted


def told(rows: list[list[tuple[Any, str]]]) -> str:
    """The rows as a text, in which 1, 1.0 and True differ; a zero has no sign."""
    return repr(
        [[(value + 0.0 if isinstance(value, float) else value, status) for value, status in row] for row in rows]
    )


def pairs(found: Any) -> list[list[tuple[Any, str]]]:
    return [
        list(zip(values, statuses, strict=True))
        for values, statuses in zip(found.python_values(), found.statuses, strict=True)
    ]


# --- What a request is answered.


def test_values_are_computed_from_the_request_and_stored_features_in_the_entities_order(cart: Hub) -> None:
    answer = ask(
        cart,
        "cart_ratio",
        "customer_purchases:total",
        "is_large",
        "cart_ratio",
        customers=["nobody", "C1", "C2", "C1", "C3"],
        request={"cart_value": [75.0, 75.0, 75.0, None, 75.0], "cart_items": [2, 2, 2, 2, None]},
    )
    assert answer["feature_names"][0] == "customer_purchases:cart_ratio"
    # C1's average is 25; nobody has none, C2's is 0 (a division by zero), C3's is withheld.
    assert answer["values"] == [
        [None, None, False, None],
        [3.0, 4, True, 3.0],
        [None, None, None, None],
        [None, 4, False, None],
        [None, None, False, None],
    ]
    null, there, bad = "NULL_VALUE", "PRESENT", "INVALID"
    assert answer["statuses"] == [
        [null, "NOT_FOUND", there, null],
        [there, there, there, there],
        [bad, null, bad, bad],
        [null, there, there, null],
        [null, "OUTSIDE_MAX_AGE", there, null],
    ]


def test_what_cannot_be_computed_is_invalid_and_touches_no_neighbour(cart: Hub) -> None:
    request = {"cart_value": [1.0, 1e300, 0.125, 5.0], "cart_items": [2, 1, 1, 2**62]}
    answer = ask(cart, "cart_cents", "cart_ratio", request=request)
    assert answer["values"] == [[200, 0.04], [None, 1e300 / 25], [None, 0.005], [None, 0.2]]
    assert [row[0] for row in answer["statuses"]] == ["PRESENT", "INVALID", "INVALID", "INVALID"]
    assert {row[1] for row in answer["statuses"]} == {"PRESENT"}


def test_a_computed_value_has_no_event_timestamp(cart: Hub) -> None:
    body = {"features": ["cart_cents", "tickets"], "entities": {"customer_id": ["C1"]}, "include": ["event_timestamps"]}
    answer = json_of(cart.vectors(**body, request={"cart_value": [1], "cart_items": [1]}))
    assert answer["values"] == [[100, 2]]
    ((computed, stored),) = answer["event_timestamps"]
    assert computed is None
    assert stored is not None


def test_no_entities_give_no_values(cart: Hub) -> None:
    for feature in ("cart_ratio", "cart_cents"):
        answer = ask(
            cart, feature, customers=[], request={"cart_value": [], **({"cart_items": []} if "s" in feature else {})}
        )
        assert (answer["values"], answer["statuses"]) == ([], [])


EVERY_DTYPE: dict[str, tuple[list[Any], str]] = {
    "int64": ([1, MAX, None], "customer_purchases:total"),
    "float64": ([0.5, 3, None], "customer_purchases:average"),
    "bool": ([True, False, None], "customer_purchases:is_member"),
    "string": (["", "é🙂", None], "customer_purchases:segment"),
    "timestamp": (["2026-01-01T00:00:00Z", "1969-12-31T23:59:59.000001Z", None], "customer_purchases:last_seen"),
    "embedding(3)": ([[1, 2.5, -1], [0, 0, 0], None], "customer_purchases:taste"),
    "list<int64>": ([[], [1, MAX], None], "customer_purchases:recent"),
}


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_every_dtype_comes_and_goes(hub: Hub, dtype: str) -> None:
    """A scalar that was not sent is the stored one; lists and embeddings are passed on as they are."""
    values, stored = EVERY_DTYPE[dtype]
    name = stored.split(":")[1]
    is_scalar = "(" not in dtype and "<" not in dtype
    define({"sent": dtype}, {"made": (dtype, f"COALESCE(sent, {name})" if is_scalar else "sent")})
    answer = ask(hub, "made", stored, request={"sent": values})
    last = answer["values"][2][1] if is_scalar else None
    assert [row[0] for row in answer["values"]] == [*values[:2], last]
    spine = spine_of(*[("C1", datetime.now(UTC))] * 3, sent=typed(values, dtype))
    found = build([f"{GROUP}:made"], spine).column("made").to_pylist()
    assert found == [row[0] for row in python_values(["made"], {"sent": values})]


def typed(values: list[Any], dtype: str) -> pa.Array:
    from engine.schema import Dtype

    kind = Dtype.parse(dtype).arrow
    if dtype == "timestamp":
        return pa.array([value and datetime.fromisoformat(value) for value in values], kind)
    return pa.array(values, kind)


def python_values(features: list[str], request: dict[str, list[Any]]) -> list[list[object]]:
    from serving import vectors

    rows = len(next(iter(request.values())))
    names = [f"{GROUP}:{name}" for name in features]
    return vectors.read(vectors.of_features(names), {"customer_id": ["C1"] * rows}, request=request).python_values()


def test_int64_as_texts_and_arrow_have_computed_values_too(hub: Hub) -> None:
    from serving.arrow import MEDIA_TYPE

    define({"sent": "int64", "at": "timestamp"}, {"big": ("int64", "sent + total"), "then": ("timestamp", "at")})
    request = {"sent": [2**60], "at": ["2026-01-01T00:00:00Z"]}
    body = {"features": ["big", "then"], "entities": {"customer_id": ["C1"]}, "request": request}
    texts = json_of(hub.post("/api/v1/vectors?int64=string", body))["values"]
    assert texts == [[str(2**60 + 4), "2026-01-01T00:00:00Z"]]
    response = hub.post("/api/v1/vectors", body, Accept=MEDIA_TYPE)
    (row,) = pa.ipc.open_stream(response.content).read_all().to_pylist()
    assert row[f"{GROUP}:big"] == 2**60 + 4
    assert row[f"{GROUP}:then"] == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_stored_value_that_cannot_be_read_makes_what_reads_it_invalid(
    cart: Hub,
    redis_client: redis.Redis,
    row_of: Callable[[str], tuple[bytes, bytes]],  # noqa: F811
) -> None:
    key, value = row_of("C1")
    redis_client.set(key, value[:20])
    answer = ask(cart, "is_large", "cart_ratio", "cart_cents", request={"cart_value": [75.0], "cart_items": [2]})
    assert answer["statuses"] == [["INVALID", "INVALID", "PRESENT"]]
    assert answer["values"] == [[None, None, 15_000]]


def test_features_of_several_groups_are_computed_side_by_side(cart: Hub) -> None:
    define({"cart_items": "int64"}, {"busy": ("int64", "tickets * cart_items")}, group="support")
    answer = ask(cart, "busy", "cart_ratio", "tickets", request={"cart_value": [50.0, 25.0], "cart_items": [3, 5]})
    assert answer["values"] == [[6, 2.0, 2], [10, 1.0, 2]]


def test_groups_that_differ_on_a_request_input_are_asked_one_after_the_other(cart: Hub) -> None:
    define({"cart_items": "float64"}, {"busy": ("float64", "tickets * cart_items")}, group="support")
    told = ask(cart, "busy", "is_large", request={"cart_value": [5.0], "cart_items": [3]}, status=400)
    assert "differ on the type of the request input cart_items: float64 and int64" in told["detail"]


def test_one_read_is_one_redis_command_and_no_query(
    cart: Hub, redis_client: redis.Redis, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    request = {"cart_value": [75.0] * 3, "cart_items": [2] * 3}
    ask(cart, "is_large", "tickets", customers=THREE[:3], request=request)
    redis_client.config_resetstat()
    with django_assert_num_queries(0):
        ask(cart, "is_large", "tickets", customers=THREE[:3], request=request)
    assert calls(redis_client) == {"mget": 1}


# --- What is refused.

BOTH = {"cart_value": [1.0], "cart_items": [1]}
BAD: dict[str, tuple[Any, str, str]] = {
    "a missing column": ({"cart_value": [1.0]}, "/request/cart_items", "missing; a list of int64"),
    "nothing sent": ({}, "/request/cart_value", "missing; a list of float64"),
    "a column too many": ({**BOTH, "cart_valve": [1.0]}, "/request/cart_valve", "no asked feature reads this"),
    "too many values": ({**BOTH, "cart_value": [1.0, 2.0]}, "/request/cart_value", "2 values; one for each of the 1"),
    "no values": ({**BOTH, "cart_value": []}, "/request/cart_value", "it has 0 values"),
    "a fraction": ({**BOTH, "cart_items": [1.5]}, "/request/cart_items/0", "is a float; int64 takes a whole number"),
    "a whole float": ({**BOTH, "cart_items": [1.0]}, "/request/cart_items/0", "is a float"),
    "beyond 64 bits": ({**BOTH, "cart_items": [2**63]}, "/request/cart_items/0", "beyond 64 bits"),
    "a text": ({**BOTH, "cart_value": ["1"]}, "/request/cart_value/0", "is a string; float64 takes"),
    "a boolean": ({**BOTH, "cart_items": [True]}, "/request/cart_items/0", "is a boolean"),
    "a rounded integer": ({**BOTH, "cart_value": [2**53 + 1]}, "/request/cart_value/0", "would be rounded"),
    "no column": ({**BOTH, "cart_value": 1.0}, "", "request is an object of columns"),
    "no object": ([], "", "request is an object of columns"),
    "null": (None, "", "request is an object of columns"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_request_that_is_not_what_is_needed_is_refused_with_what_would_be_right(cart: Hub, what: str) -> None:
    request, pointer, words = BAD[what]
    told = ask(cart, "is_large", customers=["C1"], request=request or request, status=400)
    assert told["code"] == "invalid_input"
    errors = {error["pointer"]: error["detail"] for error in told["errors"]}
    assert words in errors.get(pointer, told["detail"]), told
    if pointer:
        assert told["detail"] == "The asked features are computed from cart_value (float64), cart_items (int64)."


def test_every_problem_of_a_request_is_told_at_once_and_near_names_are_offered(cart: Hub) -> None:
    request = {"cart_valu": [1.0, 2.0], "cart_items": [1, "x"]}
    told = ask(cart, "is_large", request=request, status=400)
    assert [(error["pointer"], error["did_you_mean"]) for error in told["errors"]] == [
        ("/request/cart_value", []),
        ("/request/cart_valu", ["cart_value"]),
        ("/request/cart_items/1", []),
    ]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_finite_number_is_refused(cart: Hub, number: float) -> None:
    body = json.dumps({"features": ["cart_cents"], "entities": {"customer_id": ["C1"]}, "request": {}})
    body = body.replace('"request": {}', f'"request": {{"cart_items": [1], "cart_value": [{json.dumps(number)}]}}')
    assert "is not JSON" in json_of(cart.post("/api/v1/vectors", body), 400)["detail"]
    with pytest.raises(InvalidInput, match=r"/request/cart_value/0: is NaN or infinite"):
        python_values(["cart_cents"], {"cart_value": [number], "cart_items": [1]})


def test_values_that_no_asked_feature_reads_are_refused(cart: Hub) -> None:
    told = ask(cart, f"{GROUP}:total", customers=["C1"], request={"cart_value": [1.0]}, status=400)
    assert told["errors"][0]["pointer"] == "/request/cart_value"
    assert ask(cart, f"{GROUP}:total", customers=["C1"], request={})["values"] == [[4]]


def test_a_lookup_leaves_them_out_and_says_where_they_are_computed(cart: Hub) -> None:
    assert json_of(cart.get("/features/customer/C1")) == ALL_OF_C1
    told = json_of(cart.get("/features/customer/C1?features=total,is_large"), 400)
    assert (
        'POST /api/v1/vectors with "request": {"cart_value": [<float64>], "cart_items": [<int64>]}.' in told["detail"]
    )
    assert told["errors"][0]["pointer"] == f"{GROUP}:is_large"


def test_a_service_may_have_them_and_says_what_it_needs(cart: Hub) -> None:
    from catalog import snapshot
    from catalog.models import Feature, FeatureService

    service = FeatureService.objects.create(name="cart")
    for position, name in enumerate(["total", "cart_ratio"]):
        service.chosen.create(feature=Feature.objects.get(group__name=GROUP, name=name), position=position)
    snapshot.forget()
    body = {"feature_service": "cart", "entities": {"customer_id": ["C1"]}}
    assert json_of(cart.vectors(**body, request={"cart_value": [50]}))["values"] == [[4, 2.0]]
    told = json_of(cart.vectors(**body), 400)
    assert told["errors"][0] == {
        "pointer": "/request/cart_value",
        "detail": "this request input is missing; a list of float64, a value per entity, is right.",
        "did_you_mean": [],
    }
    assert json_of(cart.get("/features/customer/C1?feature_service=cart"), 400)["code"] == "invalid_input"


def test_a_push_takes_neither_request_inputs_nor_what_is_computed_from_them(cart: Hub) -> None:
    from engine.errors import InvalidRows

    for name in ("cart_value", "cart_ratio"):
        with pytest.raises(InvalidRows, match=f"/rows/0/{name}: the name is not part of the group"):
            push_row(GROUP, customer_id="C1", total=1, **{name: 1.0})
    push_row(GROUP, datetime.now(UTC), customer_id="C1", total=2, total_spent=10.0)
    assert ask(cart, "cart_ratio", request={"cart_value": [10.0]})["values"] == [[2.0]]


# --- Commands and Python.


def test_the_vector_command_takes_them(cart: Hub) -> None:
    asked = ["vector", "customer", "C1", "--features", "cart_ratio,total"]
    code, out, _ = run(*asked, "--request", '{"cart_value": 75}')
    assert (code, [line.split()[1:3] for line in out.splitlines()]) == (0, [["3.0", "PRESENT"], ["4", "PRESENT"]])
    code, _, err = run(*asked)
    assert (code, "POST /api/v1/vectors" in err) == (1, True)
    assert run(*asked, "--request", "[1]")[0] == 1


def test_python_reads_and_trains_with_them(cart: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from featurehub import feature_store

    monkeypatch.setattr(feature_store, "open_hub", lambda *_: None)  # the session's own Redis and database are open
    store = feature_store.FeatureStore()
    asked = ["cart_ratio", "total"]
    assert store.get_online_features("customer", "C1", asked, request={"cart_value": 75.0}) == {
        "cart_ratio": 3.0,
        "total": 4,
    }
    with pytest.raises(InvalidInput, match="computed from values of the request"):
        store.get_online_features("customer", "C1", asked)
    spine = spine_of(("C1", datetime.now(UTC)), cart_value=[75.0]).to_pandas()
    frame = store.get_historical_features(spine, [f"{GROUP}:{name}" for name in asked])
    assert list(frame.columns) == ["customer_id", "event_timestamp", "cart_value", *asked]
    assert frame["cart_ratio"].tolist() == [3.0]
    assert "cart_ratio" not in store.get_offline_features(GROUP).columns
    with pytest.raises(InvalidInput, match="a spine has to bring them"):
        store.get_latest_features(["cart_ratio"])


# --- Training.


def test_a_spine_without_a_request_input_is_refused_by_name(cart: Hub) -> None:
    from engine.errors import InvalidSpine

    now = datetime.now(UTC)
    for spine, words in (
        (spine_of(("C1", now)), "/spine/cart_value: the spine has no such column; the request input .float64. is"),
        (spine_of(("C1", now), cart_valu=[1.0]), "Did you mean cart_valu"),
        (spine_of(("C1", now), cart_value=["1"]), "/spine/cart_value: the column is string, float64 is declared"),
        (spine_of(("C1", now), cart_value=[math.inf]), "/spine/cart_value: row 0: the value cannot be kept unchanged"),
    ):
        with pytest.raises(InvalidSpine, match=words):
            build([f"{GROUP}:cart_ratio"], spine)
    fractions = spine_of(*[("C1", now)] * 3, cart_value=[1.0] * 3, cart_items=[1.0, None, 2.5])
    with pytest.raises(InvalidSpine, match="/spine/cart_items: row 2: the value cannot be kept unchanged; int64 takes"):
        build([f"{GROUP}:cart_cents"], fractions)


def test_a_spine_may_have_its_request_inputs_as_pandas_writes_them(cart: Hub) -> None:
    now = datetime.now(UTC)
    columns = {"cart_value": [1.0, 2.0, math.nan], "cart_items": [2.0, math.nan, 1.0]}
    found = build([f"{GROUP}:cart_cents"], spine_of(*[("C1", now)] * 3, **columns), statuses=True)
    assert found["cart_cents"].to_pylist() == [200, None, None]
    assert found["cart_cents__status"].to_pylist() == ["PRESENT", "NULL_VALUE", "NULL_VALUE"]
    assert found["cart_items"].type == pa.float64()  # the spine's columns stay as they are


def test_a_csv_spine_is_read_as_its_request_inputs_are_typed(hub: Hub, tmp_path: Path) -> None:
    from engine.errors import InvalidSpine

    define({"code": "string", "at": "timestamp", "items": "int64"}, {"coded": ("string", "code || segment")})
    define({}, {"days": ("int64", "CAST(EXTRACT(EPOCH FROM at) AS BIGINT) + items")})
    path = tmp_path / "spine.csv"
    lines = [
        "customer_id,event_timestamp,code,at,items",
        f"C1,{datetime.now(UTC).isoformat()},007,1970-01-01T00:00:01Z,1",
    ]
    path.write_text("\n".join([*lines, lines[1].replace("007", "").replace(",1\n", ",\n")]) + "\n")
    found = build([f"{GROUP}:coded", f"{GROUP}:days"], path)
    assert found["coded"].to_pylist() == ["007gold", None]
    assert found["days"].to_pylist() == [2, 2]
    path.write_text("\n".join([*lines, lines[1][:-1] + "1.5"]) + "\n")
    with pytest.raises(InvalidSpine, match="/spine/items: row 1: the value cannot be kept unchanged; int64"):
        build([f"{GROUP}:days"], path)


def test_names_that_clash_with_the_spine_get_their_groups(cart: Hub) -> None:
    spine = spine_of(("C1", datetime.now(UTC)), cart_value=[75.0], cart_ratio=["mine"], average=[0])
    found = build([f"{GROUP}:cart_ratio", f"{GROUP}:total"], spine)
    assert found.column_names == [
        *("customer_id", "event_timestamp", "cart_value", "cart_ratio", "average"),
        *(f"{GROUP}__cart_ratio", "total"),
    ]
    assert found[f"{GROUP}__cart_ratio"].to_pylist() == [3.0]


def test_many_rows_are_computed_in_batches_and_written_in_order(cart: Hub, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from engine.pointintime.spine import BATCH_ROWS

    rows, now = BATCH_ROWS + 1_000, datetime.now(UTC)
    values = [float(n) for n in range(rows)]
    spine = spine_of(*[("C1" if n % 2 else "C2", now) for n in range(rows)], cart_value=values)
    pq.write_table(spine, tmp_path / "spine.parquet")
    output = tmp_path / "out.parquet"
    asked = [f"{GROUP}:cart_ratio"]
    assert build(asked, tmp_path / "spine.parquet", output=output, statuses=True) == rows
    found = pq.read_table(output)
    assert found["cart_value"].to_pylist() == values
    assert found["cart_ratio"].to_pylist() == [n / 25 if n % 2 else None for n in range(rows)]
    assert set(found["cart_ratio__status"].to_pylist()[::2]) == {"INVALID"}


def test_a_dataset_is_made_again_by_its_manifest_after_the_expression_changed(cart: Hub, tmp_path: Path) -> None:
    from catalog import snapshot
    from catalog.models import Feature
    from serving import datasets
    from serving.manifest import Manifest
    from serving.training import Asked

    now = datetime.now(UTC)
    spine = spine_of(*((customer, now) for customer in THREE), cart_value=[75.0] * 4, cart_items=[2] * 4)
    names = ("is_large", "total", "cart_cents")
    asked = Asked(features=tuple(f"{GROUP}:{name}" for name in names))
    made = datasets.register("carts", asked, spine, statuses=True)
    datasets.execute(made.run)
    made = datasets.find("carts")
    manifest = made.manifest or {}
    assert manifest["format"] == 2
    (told,) = manifest["on_request"]
    assert told["request_inputs"] == [["cart_value", "float64"], ["cart_items", "int64"]]
    assert [read["name"] for read in told["reads"]] == ["average"]
    assert [(f["name"], f["output"]) for f in told["features"]] == [
        ("cart_ratio", None),
        ("is_large", "is_large"),
        ("cart_cents", "cart_cents"),
    ]
    assert told["features"][0]["expression"] == "cart_value / average"
    assert Manifest.from_json(manifest).as_json() == manifest
    assert [name for name, _ in manifest["result"]["columns"]][-6:] == [*names, *(f"{name}__status" for name in names)]
    Feature.objects.filter(name="cart_ratio").update(expression="cart_value")
    snapshot.forget()
    again = datasets.rebuild(made, tmp_path / "again.parquet")
    assert again.made.sha256 == manifest["result"]["sha256"]


def test_spark_makes_the_dataset_that_duckdb_makes(cart: Hub, spark_session: Any, tmp_path: Path) -> None:
    from serving import training

    now = datetime.now(UTC)
    spine = spine_of(*((customer, now) for customer in THREE), cart_value=[75.0] * 4, cart_items=[2] * 4)
    asked = training.Asked(features=(f"{GROUP}:is_large", f"{GROUP}:cart_ratio", f"{GROUP}:total"))
    recipe = training.plan(asked, spine.column_names, statuses=True)
    made = [training.write(recipe, spine, tmp_path / engine, engine=engine).made for engine in ("duckdb", "spark")]
    assert made[0].sha256 == made[1].sha256
    assert made[0].nulls["cart_ratio"] == 3


def test_a_manifest_without_them_keeps_its_format(cart: Hub) -> None:
    from serving import training

    recipe = training.plan(training.Asked(features=(f"{GROUP}:total",)), ["customer_id", "event_timestamp"])
    made = training.Manifest(recipe, training.Made(0, "", "", (), {}, ""))
    assert made.as_json()["format"] == 1
    assert "on_request" not in made.as_json()


def test_rows_of_a_json_body_are_typed_as_strictly_as_a_request(cart: Hub) -> None:
    row = {"customer_id": "C1", "event_timestamp": "2026-11-01T10:00:00Z", "cart_value": 1, "cart_items": 1.5}
    body = {"name": "carts", "features": [f"{GROUP}:cart_cents"], "spine": [row]}
    told = json_of(cart.post("/api/v1/training-datasets", body), 422)
    assert told["errors"][0]["pointer"] == "/spine/cart_items"
    assert "row 0: is a float; int64 takes" in told["errors"][0]["detail"]
