from __future__ import annotations

import pytest

from llama_async_proxy.importers.plan import PlannedModel, as_option, merged, without_options
from llama_async_proxy.records.models import Variant

BASE = PlannedModel("/m/a.gguf", "base", options={"ctx-size": 4096, "temp": 0.7})


def test_different_files_are_different_models() -> None:
    other = PlannedModel("/m/b.gguf", "other")
    assert merged([BASE, other]).models == (BASE, other)


def test_the_same_file_with_the_same_options_is_an_alias() -> None:
    again = PlannedModel("/m/a.gguf", "again", options=BASE.options, aliases=("more",), variants=(Variant("v"),))
    [model] = merged([BASE, again]).models
    assert (model.name, model.aliases, model.variants) == ("base", ("again", "more"), (Variant("v"),))


def test_a_made_up_name_becomes_no_alias() -> None:
    again = PlannedModel("/m/a.gguf", "made up", options=BASE.options, aliases=("b",), has_given_name=False)
    assert merged([BASE, again]).models[0].aliases == ("b",)


def test_the_same_file_with_other_sampling_is_a_variant_under_each_of_its_names() -> None:
    options = {**BASE.options, "temp": 1.2, "chat-template-kwargs": '{"enable_thinking": false}', "predict": 9}
    bold = PlannedModel("/m/a.gguf", "bold", options=options, aliases=("b",), variants=(Variant("x", {"top_k": 1}),))
    plan = merged([BASE, bold])
    own = {"temperature": 1.2, "chat_template_kwargs": {"enable_thinking": False}, "n_predict": 9}
    [model] = plan.models
    assert model.variants == (Variant("bold", own), Variant("b", own), Variant("x", {**own, "top_k": 1}))
    assert (model.options, model.aliases, plan.problems) == (BASE.options, (), ())


@pytest.mark.parametrize(
    ("key", "one", "other", "both"),
    [
        ("ctx-size", 4096, 8192, 8192),
        ("ctx-size", 4096, None, None),
        ("ctx-size", None, 8192, None),
        ("ctx-size", 4096, 0, None),
        ("idle-ttl", 60, 30, 60),
    ],
)
def test_the_larger_context_and_idle_time_apply_to_both(
    key: str, one: int | None, other: int | None, both: int | None
) -> None:
    def planned(name: str, value: int | None) -> PlannedModel:
        return PlannedModel("/m/a.gguf", name, options={} if value is None else {key: value})

    plan = merged([planned("base", one), planned("mine", other)])
    [model] = plan.models
    assert (model.name, model.aliases, model.options.get(key)) == ("base", ("mine",), both)
    assert [problem.partition(":")[0] for problem in plan.problems] == ["mine"]


def test_a_difference_in_loading_options_is_reported() -> None:
    plan = merged([BASE, PlannedModel("/m/a.gguf", "long", options={**BASE.options, "mlock": True})], ["p"])
    assert plan.models == (BASE,)
    assert plan.problems[0] == "p"
    assert plan.problems[1].startswith("long: has the same file as base, which is loaded once, but differs in --mlock")


def test_sampling_that_a_second_name_lacks_is_reported() -> None:
    plan = merged([BASE, PlannedModel("/m/a.gguf", "plain", options={"ctx-size": 4096})])
    assert plan.models == (BASE,)
    assert "leaves out its --temp" in plan.problems[0]


def test_text_that_only_looks_like_json_stays_text() -> None:
    options = {**BASE.options, "chat-template-kwargs": "{broken"}
    [model] = merged([BASE, PlannedModel("/m/a.gguf", "odd", options=options)]).models
    assert model.variants[0].parameters == {"chat_template_kwargs": "{broken"}


@pytest.mark.parametrize(
    ("parameter", "value", "option"),
    [
        ("temperature", 0.5, ("temp", 0.5)),
        ("max_tokens", 9, ("predict", 9)),
        ("chat_template_kwargs", {"a": True}, ("chat-template-kwargs", '{"a": true}')),
        ("temperature", [1], None),
        ("stop", "x", None),
    ],
)
def test_parameters_are_converted_to_options(parameter: str, value: object, option: object) -> None:
    assert as_option(parameter, value) == option


def test_options_that_the_service_refuses_are_left_out_and_named() -> None:
    plan = merged(
        [PlannedModel("/m/a.gguf", "a", options={"temp": 1, "log-file": "/x"}), PlannedModel("/m/b.gguf", "b")], ["p"]
    )
    kept = without_options(plan, lambda key: "it writes" if key == "log-file" else None)
    assert [model.options for model in kept.models] == [{"temp": 1}, {}]
    assert kept.problems == ("p", "a: --log-file is not taken over: it writes")
