"""Some places of the campaign of `make faults`, which tries all of them."""

import pytest

from tests.faults.campaign import GOOD, MODES, Campaign, Mode, new_campaign


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    with new_campaign() as new:
        yield new


# The others are left to the night.
EACH_TIME = ("boost", "fine-tuned", "predict")


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", [mode if mode in EACH_TIME else pytest.param(mode, marks=pytest.mark.night) for mode in sorted(MODES)]
)
def test_a_fault_leads_to_no_wrong_result(campaign: Campaign, mode: str) -> None:
    """Among its checkpoints, and at its end."""
    changes = campaign.whole(mode)[1]
    for fault, number in (("full", changes * 2 // 3), ("kill", changes - 4)):
        assert campaign.trial(mode, fault, number) in GOOD, (fault, number)


@pytest.mark.slow
def test_damage_leads_to_no_wrong_result(campaign: Campaign) -> None:
    campaign.run_damages("fine-tuned", every=61)
    assert not campaign.bad


def test_the_campaign_sees_a_wrong_result(campaign: Campaign) -> None:
    """It would be worth nothing if it took every result for the right one."""
    campaign.whole("fine-tuned")
    MODES["another seed"] = Mode({"seed": 7})
    try:
        folder = campaign.root / "other"
        folder.mkdir()
        whole = campaign.whole("another seed")
        campaign.whole = lambda mode: whole  # type: ignore[method-assign]
        assert campaign.second_run("fine-tuned", folder) == "WRONG"
    finally:
        del MODES["another seed"], campaign.whole
