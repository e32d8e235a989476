"""What learns: an update that is not finite leaves no trace, and a student can stand where another does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.learn.training import SETTINGS

from policyloop.learn.algorithm import Lesson
from policyloop.learn.checkpoint import decode_checkpoint
from policyloop.learn.on_policy import OnPolicy
from policyloop.learn.orders import Learn
from policyloop.learn.origin import find_origin, origin_at
from policyloop.learn.restore_point import RestorePoint
from policyloop.learn.student import Student
from policyloop.link.journal import Journal


@pytest.fixture
def student(journal: Journal, tmp_path: Path) -> Student:
    """A student that has cloned all there is, and has read the steps of an update."""
    origin = find_origin(journal.profile, SETTINGS, tmp_path / "checkpoints", resume=False, parent=None)
    student = Student(journal, origin)
    student.clone(lambda step, total, loss: None)
    assert student.algorithm.advance(1, SETTINGS.steps_per_update, journal.next)
    return student


def tensors_of(student: Student) -> dict[str, torch.Tensor]:
    order = student.begin_order(student.state(version=1, elapsed_s=0.0))
    return decode_checkpoint(order.state, order.tensors, "here").tensors


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_an_update_that_is_not_finite_leaves_no_trace_but_other_random_numbers(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnPolicy.learn

    def learn(self: OnPolicy, update: int, done: float) -> Lesson:
        lesson = real(self, update, done)
        with torch.no_grad():
            self._network.log_std[0] = float("nan")
        return lesson

    real(student.algorithm, 1, 0.0)  # moments that can be restored
    assert student.algorithm.advance(1, SETTINGS.steps_per_update, 10_000)
    monkeypatch.setattr(OnPolicy, "learn", learn)
    before = tensors_of(student)
    undone = student.learn(Learn(1, 0.5))
    assert isinstance(undone, RestorePoint)
    assert differing(before, tensors_of(student)) == {"generator"}
    assert torch.equal(undone.generator.get_state(), before["generator"])
    assert student.updates == 0


def test_a_student_that_stands_where_another_does_learns_the_same(student: Student, journal: Journal) -> None:
    order = student.begin_order(student.state(version=1, elapsed_s=0.0))
    other = Student(journal, origin_at(decode_checkpoint(order.state, order.tensors, "here")))
    assert differing(tensors_of(student), tensors_of(other)) == set()
    assert other.algorithm.advance(1, SETTINGS.steps_per_update, journal.next)
    for one in (student, other):
        assert isinstance(one.learn(Learn(1, 0.5)), Lesson)
    assert differing(tensors_of(student), tensors_of(other)) == set()
    assert student.updates == other.updates == 1
