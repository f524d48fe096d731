import signal

import pytest

from st_trainer.interruption import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_stop_and_the_second_would_end_the_process(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    with stop_on_signals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        assert stop.signal is number
        assert [signal.getsignal(each) for each in before] == [signal.SIG_DFL] * 2
    assert {each: signal.getsignal(each) for each in before} == before
