"""Keys: made once, readable by their owner only, and a list of who may connect."""

import pytest

from policyloop.errors import ConfigError, SafetyRefusal, StorageError, UsageError
from policyloop.link.keys import AllowList, check_key, create_identity, load_identity

OTHER = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"  # from the ZeroMQ reference


def test_an_identity_comes_back_and_only_its_owner_can_read_it(tmp_path):
    made = create_identity(tmp_path / "keys", "rover-7")
    assert load_identity(tmp_path / "keys") == made
    assert check_key(made.public) == made.public
    assert (tmp_path / "keys" / "identity.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_two_identities_differ(tmp_path):
    assert create_identity(tmp_path / "a", "a").secret != create_identity(tmp_path / "b", "b").secret


def test_a_secret_is_not_shown(tmp_path):
    identity = create_identity(tmp_path, "r0")
    assert identity.secret not in f"{identity} {identity!r}"


def test_an_identity_is_never_overwritten(tmp_path):
    made = create_identity(tmp_path, "r0")
    with pytest.raises(UsageError, match="exists already"):
        create_identity(tmp_path, "r0")
    assert load_identity(tmp_path) == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    create_identity(tmp_path, "r0")
    (tmp_path / "identity.json").chmod(mode)
    with pytest.raises(SafetyRefusal, match="can be read by others") as caught:
        load_identity(tmp_path)
    assert "chmod 600" in caught.value.remedy
    assert caught.value.exit_code == 6


def test_a_key_behind_a_link_is_refused(tmp_path):
    create_identity(tmp_path / "real", "r0")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "identity.json").symlink_to(tmp_path / "real" / "identity.json")
    with pytest.raises(ConfigError):
        load_identity(tmp_path / "fake")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": "r0", "public": "short", "secret": "short"}', "\x80"])
def test_a_file_that_is_no_key_is_refused(tmp_path, text):
    path = tmp_path / "identity.json"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no key file"):
        load_identity(tmp_path)


def test_no_key_is_said_with_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="no key at") as caught:
        load_identity(tmp_path)
    assert "policyloop keys new" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "Rover", "../x", "a/b", "-x", "a" * 65, "r 0", "r\n"])
def test_a_name_that_could_be_a_path_is_none(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be a name"):
        create_identity(tmp_path, name)
    with pytest.raises(UsageError, match="cannot be a name"):
        AllowList(tmp_path).allow(name, OTHER)
    assert not (tmp_path / "identity.json").exists()


@pytest.mark.parametrize("key", ["", "x" * 39, OTHER + "x", "\u20ac" * 40, "~" * 40])
def test_what_is_no_key_is_not_allowed(tmp_path, key):
    with pytest.raises(UsageError, match="no public key"):
        AllowList(tmp_path).allow("r0", key)


def test_allowing_and_revoking(tmp_path):
    allowed = AllowList(tmp_path)
    mine = create_identity(tmp_path, "trainer").public
    assert allowed.entries() == {}
    allowed.allow("r0", OTHER)
    allowed.allow("r1", mine)
    assert allowed.entries() == {"r0": OTHER, "r1": mine}
    assert (allowed.name_of(OTHER), allowed.name_of(mine), allowed.name_of("?" * 40)) == ("r0", "r1", "")
    allowed.revoke("r0")
    assert allowed.name_of(OTHER) == ""
    with pytest.raises(UsageError, match="is not allowed") as caught:
        allowed.revoke("r0")
    assert "r1" in caught.value.remedy


def test_a_new_key_replaces_the_old_one_of_the_same_name(tmp_path):
    allowed = AllowList(tmp_path)
    mine = create_identity(tmp_path, "trainer").public
    allowed.allow("r0", OTHER)
    allowed.allow("r0", mine)
    assert allowed.entries() == {"r0": mine}


def test_one_key_is_one_robots(tmp_path):
    allowed = AllowList(tmp_path)
    allowed.allow("r0", OTHER)
    with pytest.raises(UsageError, match="allowed as 'r0' already"):
        allowed.allow("r1", OTHER)


@pytest.mark.parametrize("text", ["", "{", '{"name": "../r0", "public": "x"}', "[]"])
def test_a_broken_entry_allows_nobody_and_hides_nobody(tmp_path, text):
    allowed = AllowList(tmp_path)
    allowed.allow("r0", OTHER)
    (tmp_path / "allowed" / "broken.json").write_text(text)
    assert allowed.entries() == {"r0": OTHER}


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        create_identity(tmp_path / "file" / "keys", "r0")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
