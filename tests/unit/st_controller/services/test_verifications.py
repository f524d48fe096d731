import pytest

from st_controller.errors import StillVerifying
from st_controller.services.verifications import Verifications


def test_an_artifact_is_verified_by_one_call_at_a_time():
    made = Verifications()
    with made.alone(["a", "b"]):
        with pytest.raises(StillVerifying, match="1 of these files"), made.alone(["b", "c"]):
            pass
        with made.alone(["c"]):
            pass
    with made.alone(["a", "b", "c"]):
        pass


def test_a_verification_that_fails_may_be_made_again():
    made = Verifications()
    with pytest.raises(OSError, match="gone"), made.alone(["a"]):
        raise OSError("the store is gone")
    with made.alone(["a"]):
        pass
