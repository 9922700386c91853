"""The only place where settings are read: the environment first, then a file of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from agent.errors import SettingError
from agent.model.addresses import without_secrets
from agent.processes import trust
from agent.settings.settings import Settings

_FILE = "ORC_ENV_FILE"
_NAME_IT = "Set {variable}={path} if it is what you want, or go elsewhere"
#: variable → where its setting stands
_PLACES = {variable: place for variable, place, _ in Settings.variables()}
_SECRET = {variable for variable, _, field in Settings.variables() if field.annotation is SecretStr}
#: these may hold a password
_ADDRESSES = {variable for variable in _PLACES if variable.endswith("_URL") or variable == "ORC_SCHEDULER"}

M = TypeVar("M", bound=BaseModel)


def load() -> Settings:
    """The settings. Raises SettingError naming each wrong one and why, or whose files would have been obeyed."""
    environment = spoken(_PLACES)
    file = _file(environment.get(_FILE))
    in_file = {} if file is None else _read(file, environment)
    values: dict[str, Any] = {}
    for variable, value in (in_file | environment).items():
        *above, name = _PLACES[variable]
        (values.setdefault(above[0], {}) if above else values)[name] = value
    settings = checked(Settings, values, {place: variable for variable, place in _PLACES.items()}, in_file, file)
    _refuse_strangers(settings)
    return settings if file is None else settings.told_by(file, tuple(in_file))


def spoken(variables: Iterable[str]) -> dict[str, str]:
    """What the environment says of some variables; their case does not matter."""
    wanted = {variable.upper() for variable in variables}
    return {name.upper(): value for name, value in os.environ.items() if name.upper() in wanted}


def checked(
    kind: type[M],
    values: Mapping[str, Any],
    variables: Mapping[tuple[str, ...], str],
    in_file: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> M:
    """Settings of these values. Raises SettingError naming each wrong one, by its variable, and why."""
    try:
        return kind(**values)
    except ValidationError as error:
        said = in_file or {}
        lines = []
        for each in error.errors():
            variable = next(variables[each["loc"][:n]] for n in (2, 1) if each["loc"][:n] in variables)  # type: ignore[index]
            lines.append(_shown(each, variable, f" ({file})" if variable in said else ""))
        raise SettingError("\n".join(lines)) from error


def _refuse_strangers(settings: Settings) -> None:
    """What is taken because one stands beside it is taken only if nobody else can have written it."""
    for name, files in (("home", ("ledger.db",)), ("rules", ("*.yaml",))):
        path: Path = getattr(settings, name)
        if name in settings.model_fields_set or not path.exists():
            continue
        for found in (path, *(file for pattern in files for file in path.glob(pattern))):
            if why := trust.stranger(found):
                how = _NAME_IT.format(variable=Settings.variable(name), path=path)
                raise SettingError(f"{why}: it is not taken because one stands beside it. {how}")


def _file(named: str | None) -> Path | None:
    """The file of settings, where there is one."""
    path = Path(Settings.model_fields["env_file"].default if named is None else named)
    if named == "" or (named is None and not path.is_file()):
        return None
    if not path.is_file():
        raise SettingError(f"{_FILE}={named}: there is no such file")
    if named is None and (why := trust.stranger(path)):
        raise SettingError(f"{why}: its settings are not obeyed. {_NAME_IT.format(variable=_FILE, path=path)}")
    return path


def _read(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What the file says of settings, and the environment does not."""
    from dotenv import dotenv_values  # not at the top: most have no such file

    said = {name.upper(): value for name, value in dotenv_values(path, encoding="utf-8").items() if value is not None}
    return {name: value for name, value in said.items() if name in _PLACES and name not in environment}


def _shown(error: ErrorDetails, variable: str, where: str) -> str:
    """One wrong setting, without its secrets."""
    value, why = error["input"], error["msg"].removeprefix("Value error, ")
    if isinstance(value, str) and variable in _SECRET | _ADDRESSES:
        shown = "***" if variable in _SECRET else without_secrets(value)
        value, why = shown, why.replace(value, shown)
    return f"{variable}={value!r}{where}: {why}"
