import asyncio
import os
import re
from typing import Any, cast

import pytest

import modelport
from modelport.services.declaration import Service, api, on_startup, service, task


def test_a_service_makes_objects_as_in_a_unit_test() -> None:
    @service(name="greeter")
    class Greeting:
        @api
        def greet(self, name: str) -> str:
            return f"Hello {name}"

    assert isinstance(Greeting, Service)
    assert Greeting.name == "greeter"
    assert Greeting().greet("Ann") == "Hello Ann"


def test_names_and_routes_are_honoured() -> None:
    @service
    class NamedService:
        @api(name="other", route="custom")
        def method(self) -> None: ...

        @api
        def __call__(self) -> None: ...

    Named = cast(Any, NamedService)
    assert (Named.apis["method"].name, Named.apis["method"].route) == ("other", "/custom")
    assert Named.apis["__call__"].route == "/"


def test_options_that_are_none_are_those_not_given() -> None:
    @service(name=None, description=None, path_prefix=None, envs=None, labels=None, workers=None)
    class Named:
        """What it is for."""

    declared: Any = Named
    assert (declared.name, declared.doc, declared.prefix) == ("Named", "What it is for.", "")


def test_two_endpoints_cannot_have_one_route() -> None:
    with pytest.raises(ValueError, match="both have the route '/a'"):

        @service
        class Clashing:
            @api(route="/a")
            def one(self) -> None: ...

            @api(route="/a")
            def two(self) -> None: ...


def test_endpoints_and_hooks_are_inherited() -> None:
    class Base:
        @on_startup
        def warm(self) -> None: ...

        @api
        def ping(self) -> str:
            return "pong"

    @service
    class DerivedService(Base):
        @api
        def pong(self) -> str:
            return "ping"

    Derived = cast(Any, DerivedService)
    assert list(Derived.apis) == ["ping", "pong"]
    assert Derived.hooks("startup") == ["warm"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"wrokers": 2}, "unknown option wrokers"),
        ({"threads": 0}, "at least 1"),
        ({"traffic": {"timeout": 0}}, "above 0"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        service(**options)(type("Empty", (), {}))  # type: ignore[call-overload]


def test_a_task_has_one_result() -> None:
    with pytest.raises(TypeError, match="is a generator"):

        @task
        def numbers(self: object) -> object:
            yield 1


def test_the_names_of_the_package_are_these() -> None:
    assert modelport.service is service
    assert modelport.exceptions.NotFound("x").error_code == 404
    assert modelport.validators.DType("float32").dtype == "float32"


def test_dependencies_answer_in_unit_tests() -> None:
    @service
    class Inner:
        @api
        async def shout(self, text: str) -> str:
            return text.upper()

    @service
    class Outer:
        inner = modelport.depends(Inner)

        @api
        def call(self, text: str) -> str:
            result: str = self.inner.shout(text)
            return result

    assert Outer().call("a") == "A"


def test_another_server_is_not_asked_before_it_is_called() -> None:
    @service
    class Outer:
        other = modelport.depends(url="http://127.0.0.1:9")

    proxy = Outer().other
    assert proxy.to_sync is proxy
    assert not asyncio.run(proxy.is_ready(1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": "many"}, "workers is 'many'"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"workers": True}, "workers is True"),
        ({"resources": {"gpu": 1.5}}, "gpu is 1.5"),
        ({"resources": {"gpu": -1}}, "gpu is -1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        service(**options)(type("Odd", (), {}))


def test_the_number_of_workers_may_follow_the_processors() -> None:
    many: Service[Any] = service(workers="cpu_count")(type("Many", (), {}))
    assert many.options.worker_count == len(os.sched_getaffinity(0))
    assert service(type("One", (), {})).options.worker_count == 1
