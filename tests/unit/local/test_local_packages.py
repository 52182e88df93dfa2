"""Where the local stack keeps what it downloads."""

import pwd

import pytest

from cdc.errors import LocalStackError
from cdc.local import packages


def test_a_user_without_home_is_asked_to_name_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> pwd.struct_passwd:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LocalStackError, match=r"no cache folder.*set HOME or XDG_CACHE_HOME"):
        packages.cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(packages.cache()) == "/cache/cdc-publisher"
