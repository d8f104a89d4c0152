"""How often a message is tried, and how long after one another: what the `backOff` fields mean."""

from __future__ import annotations

import pytest

from lapel.delivery import Backoff
from lapel.driver import DriverContext
from lapel_contrib.kafka.component_settings import KafkaPubSubSettings
from lapel_contrib.kafka.pubsub import KafkaPubSub


@pytest.mark.parametrize(
    ("fields", "backoff", "attempts"),
    [
        ({}, Backoff(initial=5.0, maximum=5.0, multiplier=1.0, jitter=0.0), None),
        ({"backOffDuration": "200"}, Backoff(initial=0.2, maximum=0.2, multiplier=1.0, jitter=0.0), None),
        ({"backOffMaxRetries": "3"}, Backoff(initial=5.0, maximum=5.0, multiplier=1.0, jitter=0.0), 4),
        ({"consumeRetryEnabled": "false"}, Backoff(initial=5.0, maximum=5.0, multiplier=1.0, jitter=0.0), 1),
        (
            {"backOffPolicy": "exponential"},
            Backoff(initial=0.5, maximum=60.0, multiplier=1.5, jitter=0.5),
            None,
        ),
        (
            {
                "backOffPolicy": "Exponential",
                "backOffInitialInterval": "1s",
                "backOffMultiplier": "2",
                "backOffMaxInterval": "3s",
                "backOffRandomizationFactor": "0.1",
                "backOffMaxElapsedTime": "10s",
            },
            # 1 + 2 + 3 + 3 seconds of pauses fit, and so five attempts.
            Backoff(initial=1.0, maximum=3.0, multiplier=2.0, jitter=0.1),
            5,
        ),
        (
            {"backOffPolicy": "exponential", "backOffMaxElapsedTime": "0"},
            Backoff(initial=0.5, maximum=60.0, multiplier=1.5, jitter=0.5),
            None,
        ),
        (
            {"backOffPolicy": "exponential", "backOffMaxElapsedTime": "0", "backOffMaxRetries": "2"},
            Backoff(initial=0.5, maximum=60.0, multiplier=1.5, jitter=0.5),
            3,
        ),
        ({"backOffMaxElapsedTime": "1s"}, Backoff(initial=5.0, maximum=5.0, multiplier=1.0, jitter=0.0), None),
    ],
)
def test_the_pauses_and_attempts_of_messages(fields: dict[str, str], backoff: Backoff, attempts: int | None) -> None:
    driver = KafkaPubSub(
        KafkaPubSubSettings.parse({"brokers": "one:1", "authType": "none", **fields}), DriverContext(component="c")
    )
    assert (driver.backoff, driver.max_attempts) == (backoff, attempts)
