"""Settings from TOML files: who wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from policyloop.config import load_settings
from policyloop.errors import ConfigError


class Wheels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    count: int = 4
    radius_m: float = 0.06


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = "rover"
    speed_mps: float = 0.5
    wheels: Wheels = Wheels()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_without_anything_the_defaults_hold() -> None:
    assert load_settings(Settings, None) == Settings()


def test_a_file_replaces_defaults(path: Path) -> None:
    path.write_text('name = "mule"\n[wheels]\ncount = 6\n')
    settings = load_settings(Settings, path)
    assert settings == Settings(name="mule", wheels=Wheels(count=6))


def test_the_command_line_replaces_defaults() -> None:
    assert load_settings(Settings, None, name="mule", speed_mps=1) == Settings(name="mule", speed_mps=1.0)


def test_the_command_line_fills_what_the_file_does_not_say(path: Path) -> None:
    path.write_text('name = "mule"\n')
    assert load_settings(Settings, path, speed_mps=0.1) == Settings(name="mule", speed_mps=0.1)


def test_the_command_line_overrides_the_file(path: Path) -> None:
    path.write_text('name = "mule"\nspeed_mps = 0.1\n')
    assert load_settings(Settings, path, name="typed") == Settings(name="typed", speed_mps=0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("nme = 'x'", "nme", id="a misspelt key"),
        pytest.param("[wheels]\ncuont = 3", r"\$\.wheels", id="a misspelt key inside"),
        pytest.param("speed_mps = 'fast'", r"\$\.speed_mps", id="a value of another type"),
        pytest.param("[wheels]\ncount = 3.5", r"\$\.wheels\.count", id="half a wheel"),
        pytest.param("name = ", "not valid TOML", id="not TOML"),
        pytest.param("name = 'a'\nname = 'b'", "not valid TOML", id="twice the same key"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_culprit(text: str, said: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_settings(Settings, path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 3


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_settings(Settings, path)
    assert str(path) in caught.value.message


def test_a_wrong_value_on_the_command_line_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"command line: .*\$\.speed_mps"):
        load_settings(Settings, None, speed_mps="fast")


def test_a_file_that_is_not_text_is_refused(path: Path) -> None:
    path.write_bytes('name = "Müller"'.encode("latin-1"))
    with pytest.raises(ConfigError):
        load_settings(Settings, path)
