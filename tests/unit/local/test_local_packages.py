"""The cache folder of the local stack."""

import pwd

import pytest

from cdc.errors import LocalStackError
from cdc.local import packages


def test_a_user_without_home_gets_a_hint_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> pwd.struct_passwd:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LocalStackError, match=r"no cache directory.*set HOME or XDG_CACHE_HOME"):
        packages.cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(packages.cache()) == "/cache/cdc-publisher"
