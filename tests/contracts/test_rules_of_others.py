"""Whose alerts insight lets be silenced before they have ever fired: it judges no rules of other services, and has to know their names."""

from sluice_cost.adapters.alert_events import UNPRICED
from sluice_insight.domain.alerting.silences import RULES_OF_OTHERS


def test_insight_knows_the_rules_of_other_services():
    assert set(RULES_OF_OTHERS) == {UNPRICED}
