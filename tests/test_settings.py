"""The table of DLCORE_* variables."""

import pytest

from dlcore import settings
from dlcore.errors import SettingError


@pytest.fixture
def environment(monkeypatch):
    settings.get.cache_clear()
    yield monkeypatch.setenv
    monkeypatch.undo()
    settings.get.cache_clear()


def test_defaults_parse(environment):
    assert [settings.TABLE[name].parse(settings.TABLE[name].default) is not ... for name in settings.TABLE]


def test_value_is_parsed(environment):
    environment("DLCORE_NUM_THREADS", "3")
    assert settings.get("NUM_THREADS") == 3


def test_variants_are_pairs(environment):
    environment("DLCORE_VARIANT", "conv2d=im2col,matmul=reference")
    assert settings.get("VARIANT") == {"conv2d": "im2col", "matmul": "reference"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DLCORE_BACKEND", "numpi", "did you mean numpy"),
        ("DLCORE_STRICT", "yes", "expected 0 or 1"),
        ("DLCORE_NUM_THREADS", "-2", "number of threads"),
        ("DLCORE_NUM_THREADS", "two", "number of threads"),
        ("DLCORE_VARIANT", "conv2d", "OP=VARIANT"),
        ("DLCORE_ISA", "avx", "avx2"),
    ],
)
def test_bad_value_is_named_with_what_is_legal(environment, name, value, message):
    environment(name, value)
    with pytest.raises(SettingError, match=f"{name}={value}: .*{message}"):
        settings.get(name.removeprefix("DLCORE_"))


def test_unknown_name_gets_the_nearest_one(environment):
    environment("DLCORE_BACKED", "cpu")
    with pytest.raises(SettingError, match="unknown environment variable DLCORE_BACKED; did you mean DLCORE_BACKEND"):
        settings.get("STRICT")
