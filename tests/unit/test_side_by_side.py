"""Work for several items at once: what is told, what is dropped, what is waited for."""

import threading

import pytest

from vtpm_compute import side_by_side


class WorkError(Exception):
    pass


def run(work, items, at_once=6, seconds=30):
    return side_by_side.SideBySide(work, items, at_once, seconds).run()


@pytest.fixture
def never():
    """Set when the test ends: what waits for it ends too."""
    event = threading.Event()
    yield event
    event.set()


def test_results_are_in_the_order_of_the_items():
    last = threading.Event()

    def work(item, _):
        if item == 5:
            last.set()
        assert last.wait(20)
        return item * 2

    assert run(work, range(6)) == [0, 2, 4, 6, 8, 10]


def test_later_items_are_not_waited_for(never):
    def work(item, _):
        if item == 0:
            return WorkError("first")
        never.wait()
        return item

    with pytest.raises(WorkError, match="first"):
        run(work, range(6))


def test_earlier_items_are_waited_for():
    failed = threading.Event()

    def work(item, _):
        if item == 1:
            failed.set()
            return WorkError("second")
        assert failed.wait(20)
        return WorkError("first") if item == 0 else item

    for _ in range(20):
        failed.clear()
        with pytest.raises(WorkError, match="first"):
            run(work, range(3))


def test_what_runs_for_a_dropped_item_is_told():
    deadlines, both = {}, threading.Barrier(2)

    def work(item, deadline):
        deadlines[item] = deadline
        both.wait(20)
        return WorkError("first") if item == 0 else "not yet done"

    with pytest.raises(WorkError, match="first"):
        run(work, [0, 1])
    assert deadlines[1].has_passed()


def test_what_runs_for_an_earlier_item_goes_on():
    failed, seen = threading.Event(), []

    def work(item, deadline):
        if item == 1:
            failed.set()
            return WorkError("second")
        assert failed.wait(20)
        seen.append(deadline.has_passed())
        return item

    with pytest.raises(WorkError, match="second"):
        run(work, range(2))
    assert seen == [False]


def test_items_after_a_failure_are_not_begun():
    failed, begun = threading.Event(), threading.Event()

    def work(item, _):
        if item == 0:
            assert failed.wait(20)
            # Time for another thread to do what it must not.
            begun.wait(0.3)
            return item
        if item == 1:
            failed.set()
            return WorkError("second")
        begun.set()
        return item

    with pytest.raises(WorkError, match="second"):
        run(work, range(3), at_once=2)
    assert not begun.is_set()


def test_the_threads_do_not_keep_the_process():
    assert run(lambda item, _: threading.current_thread().daemon, [0]) == [True]


def test_the_time_is_up(never):
    def work(item, _):
        if item == 2:
            never.wait()
        return item

    with pytest.raises(side_by_side.NotInTimeError) as caught:
        run(work, range(3), seconds=0.2)
    assert caught.value.position == 2


def test_results_do_not_stay():
    late, threads = threading.Event(), []

    def work(item, _):
        threads.append(threading.current_thread())
        if item == 3:
            late.wait(20)
        return item

    one = side_by_side.SideBySide(work, range(4), 4, 0.2)
    with pytest.raises(side_by_side.NotInTimeError):
        one.run()
    assert one._outcomes == [None] * 4
    late.set()
    for thread in threads:
        thread.join(20)
    assert one._outcomes == [None] * 4
