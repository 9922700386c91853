"""Spot prices of AWS, from EC2's spot price history, through boto3 (the extra `aws`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from agent.errors import PriceError, UnitError
from agent.model.pools import PriceStep
from agent.model.units import usd_micros

#: aws/TYPE/ZONE/spot
_NAME = re.compile(r"aws/([a-z0-9][\w.-]*)/([a-z]+(?:-[a-z]+)+-\d+)([a-z0-9-]*[a-z])/spot")
PRODUCT = "Linux/UNIX"


class AwsPrices:
    """`aws/TYPE/ZONE/spot`: the spot price of Linux in that zone, in force now.

    Credentials are boto3's own affair. On-demand prices are not in EC2's history; they belong in the file of prices.
    """

    def __init__(self, endpoint_url: str | None = None) -> None:
        self.endpoint_url = endpoint_url

    def look(self, names: Collection[str]) -> Mapping[str, tuple[PriceStep, ...]]:
        """See `Prices`. Raises PriceError: no such name, no boto3, no answer, no price."""
        parts = {}
        for name in sorted(names):
            if (found := _NAME.fullmatch(name)) is None:
                raise PriceError(
                    f"there is no price {name!r}: AWS tells aws/TYPE/ZONE/spot, for example "
                    "aws/p3.2xlarge/us-east-1a/spot; any other belongs in the file of ORC_PRICES"
                )
            parts[name] = found.groups()
        return {name: self._steps(name, kind, region, region + zone) for name, (kind, region, zone) in parts.items()}

    def _steps(self, name: str, kind: str, region: str, zone: str) -> tuple[PriceStep, ...]:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise PriceError(f"price {name} is asked of AWS through boto3: pip install 'orc-agent[aws]'") from error
        try:
            patience = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 3})
            client = boto3.client("ec2", region_name=region, endpoint_url=self.endpoint_url, config=patience)
            pages = client.get_paginator("describe_spot_price_history").paginate(
                # from now on: what is in force, and nothing older
                StartTime=datetime.now(UTC),
                InstanceTypes=[kind],
                ProductDescriptions=[PRODUCT],
                AvailabilityZone=zone,
            )
            entries: list[Any] = [entry for page in pages for entry in page["SpotPriceHistory"]]
        except (BotoCoreError, ClientError) as error:
            raise PriceError(f"AWS does not tell price {name}: {error}") from error
        mine = [e for e in entries if (e.get("InstanceType"), e.get("AvailabilityZone")) == (kind, zone)]
        if not mine:
            raise PriceError(f"there is no price {name!r}: AWS sells no spot {kind} in {zone} now, or knows neither")
        steps = [
            PriceStep(since_ms=round(e["Timestamp"].timestamp() * 1000), usd_micros_per_hour=_usd(name, e["SpotPrice"]))
            for e in mine
        ]
        return tuple(sorted(steps, key=lambda step: step.since_ms))


def _usd(name: str, said: str) -> int:
    try:
        return usd_micros(said)
    except UnitError as error:
        raise PriceError(f"AWS says that price {name} is {said!r}: {error}") from error
