from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import KeyRing, create_signer, sign_bundle
from policyloop.bundle.store import Store
from policyloop.dashboard.versions import StoreView
from policyloop.errors import SafetyRefusal, UsageError


@pytest.fixture
def store(exported: Bundle, tmp_path: Path) -> Store:
    """A store of versions 7 and 8; 7 is good, 8 is current."""
    store = Store(tmp_path / "store")
    for version in (7, 8):
        manifest = msgspec.structs.replace(exported.manifest, version=version)
        path = store.add(msgspec.structs.replace(exported, manifest=manifest))
        store.activate(path)
        if version == 7:
            store.mark(path, "good", "has proved itself")
    return store


@pytest.fixture
def view(store: Store, tmp_path: Path) -> StoreView:
    """What the page shows of it."""
    view = StoreView(store.directory, KeyRing(tmp_path / "keys"))
    view.read()
    return view


def test_every_version_is_shown_newest_first(view: StoreView, store: Store) -> None:
    newest, older = view.shown.versions
    assert (newest.version, newest.state, newest.current) == (8, "active", True)
    assert (older.version, older.state, older.current, older.note) == (7, "good", False, "has proved itself")
    assert (view.shown.current, view.shown.previous) == (newest.name, older.name)
    assert newest.report["profile"].startswith("rover-mini ")
    assert "learner bc" in newest.report["training"]


def test_only_what_changes_is_told(view: StoreView, store: Store) -> None:
    before = view.revision
    view.read()
    assert view.revision == before
    store.mark(store.versions()[-1], "bad", "fell")
    view.read()
    assert view.revision == before + 1
    assert view.shown.versions[0].note == "fell"


def test_signatures_count_by_the_key_ring(view: StoreView, store: Store, tmp_path: Path) -> None:
    assert [(v.signature, v.trusted) for v in view.shown.versions] == [("not signed", False)] * 2
    path = store.versions()[-1]
    signer = create_signer(tmp_path / "operator", "ada")
    sign_bundle(path, (path / "manifest.json").read_bytes(), signer)
    view.read()
    assert view.shown.versions[0].signature == "the bundle is signed by nobody who is trusted here"
    KeyRing(tmp_path / "keys").allow("ada", signer.public)
    view.read()
    assert (view.shown.versions[0].signature, view.shown.versions[0].trusted) == ("signed by ada", True)
    (path / "manifest.json").write_bytes((path / "manifest.json").read_bytes().replace(b'"bc"', b'"xx"'))
    view.read()
    assert view.shown.versions[0].trusted is False


def test_a_damaged_version_is_shown_as_such(view: StoreView, store: Store) -> None:
    (store.versions()[0] / "manifest.json").write_text("{")
    view.read()
    assert view.shown.versions[1].problem
    assert view.shown.versions[0].problem == ""


def test_a_damaged_store_is_shown_as_it_was(view: StoreView, store: Store) -> None:
    (store.directory / "state.json").write_text("{")
    view.read()
    assert "damaged" in view.shown.problem
    assert len(view.shown.versions) == 2


def test_a_store_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    view = StoreView(tmp_path / "later", KeyRing(tmp_path))
    view.read()
    assert (view.shown.versions, view.shown.problem) == ([], "")


def test_activating_is_that_of_the_store(view: StoreView, store: Store) -> None:
    newest, older = (path.name for path in reversed(store.versions()))
    view.activate(older)
    assert store.current == store.find(7)
    store.mark(store.find(8), "bad")
    with pytest.raises(SafetyRefusal, match="is marked bad"):
        view.activate(newest)
    with pytest.raises(UsageError, match="has no version"):
        view.activate("../../etc")


def test_going_back_is_from_what_the_person_saw(view: StoreView, store: Store) -> None:
    newest, older = (path.name for path in reversed(store.versions()))
    with pytest.raises(UsageError, match="is current by now"):
        view.rollback(older)
    view.rollback(newest)
    assert store.current == store.find(7)
    assert store.about(store.find(8)).state == "bad"
    assert store.about(store.find(8)).note == "rolled back from the dashboard"
