"""Prices by name: from memory, a file and AWS, each of them against the same contract, and in pools.yaml."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import pytest

from agent.errors import PoolError, PriceError
from agent.model.pools import PriceStep
from agent.pools import declared, prices
from agent.pools.aws import AwsPrices
from agent.pools.port import Price
from agent.settings import Settings

V100 = "aws/p3.2xlarge/us-east-1a/spot"
#: 2026-01-01T00:00:00Z, ms
NEW_YEAR = 1_767_225_600_000


class Ec2:
    """EC2's spot price history, as much of it as prices need: Query requests in, XML out, two entries a page."""

    def __init__(self) -> None:
        self.history = [("p3.2xlarge", "us-east-1a", "2026-01-01T00:00:00.000Z", "0.918000")]
        self.asked: list[dict[str, str]] = []
        self.refuses = ""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["content-length"])).decode()
                status, body = stand_in.answer({key: said[0] for key, said in parse_qs(text).items()})
                self.send_response(status)
                self.send_header("content-type", "text/xml")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, asked: dict[str, str]) -> tuple[int, str]:
        self.asked.append(asked)
        if self.refuses:
            errors = f"<Error><Code>{self.refuses}</Code><Message>it says no</Message></Error>"
            return 401, f"<Response><Errors>{errors}</Errors><RequestID>1</RequestID></Response>"
        assert asked["Action"] == "DescribeSpotPriceHistory"
        assert asked["ProductDescription.1"] == "Linux/UNIX"
        found = [e for e in self.history if e[0] == asked["InstanceType.1"] and e[1] == asked["AvailabilityZone"]]
        first = int(asked.get("NextToken", 0))
        token = str(first + 2) if len(found) > first + 2 else ""
        items = "".join(
            f"<item><instanceType>{kind}</instanceType><productDescription>Linux/UNIX</productDescription>"
            f"<spotPrice>{usd}</spotPrice><timestamp>{at}</timestamp><availabilityZone>{zone}</availabilityZone></item>"
            for kind, zone, at, usd in found[first : first + 2]
        )
        return 200, (
            '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>1</requestId>'
            f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{token}</nextToken>"
            "</DescribeSpotPriceHistoryResponse>"
        )


@pytest.fixture
def ec2(monkeypatch) -> Iterator[Ec2]:
    pytest.importorskip("boto3", reason="prices of AWS need boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-stand-in")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    made = Ec2()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def in_memory(tmp_path, request):
    return prices.KnownPrices({V100: (PriceStep(since_ms=NEW_YEAR, usd_micros_per_hour=918_000),)})


def in_a_file(tmp_path, request):
    file = tmp_path / "prices.yaml"
    file.write_text(f"prices:\n  {V100}: [{{since: 2026-01-01T00:00:00Z, usd_per_hour: 0.918}}]\n")
    return prices.FilePrices(file)


def at_aws(tmp_path, request):
    return AwsPrices(request.getfixturevalue("ec2").url)


@pytest.fixture(params=[in_memory, in_a_file, at_aws])
def known(request, tmp_path):
    return request.param(tmp_path, request)


# every source


def test_a_known_name_has_its_steps(known):
    assert known.look([V100]) == {V100: (PriceStep(since_ms=NEW_YEAR, usd_micros_per_hour=918_000),)}
    assert known.look([]) == {}


@pytest.mark.parametrize("name", ["aws/p3.2xlarge/us-east-1z/spot", "aws/p3.2xlarge/us-east-1a/cheap", "lab/big"])
def test_a_name_that_nobody_knows_is_refused_by_name(known, name):
    with pytest.raises(PriceError, match=f"there is no price '{name}'"):
        known.look([V100, name])


# a file


def test_the_nearest_names_of_a_file_are_said(tmp_path):
    with pytest.raises(PriceError, match=f"near it: {V100}"):
        in_a_file(tmp_path, None).look([V100.replace("1a", "1b")])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prices: {a/b: .nan}", r"a/b: .*finite"),
        ("prices: {a/b: -1}", r"a/b: .*not negative"),
        ("prices: {a/b: dear}", r"a/b: .*cannot be read"),
        ("prices: {a/b: []}", r"a/b: .*at least 1"),
        ("prices: {a/b: [{since: soon, usd_per_hour: 1}]}", r"a/b: .*datetime"),
        ("prices: {a: 1}", "'a' is no name"),
        ("a/b: 1", "a mapping `prices:`"),
        ("prices: {a/b: ]", "not YAML"),
    ],
)
def test_a_wrong_file_of_prices_is_refused_with_the_name(tmp_path, text, says):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(PriceError, match=says):
        prices.FilePrices(file).look(["a/b"])
    with pytest.raises(PriceError, match="cannot be read"):
        prices.FilePrices(tmp_path / "none.yaml").look([])


# AWS


def test_aws_is_asked_for_what_is_in_force_page_by_page(ec2):
    ec2.history += [
        ("p3.2xlarge", "us-east-1a", f"2026-01-0{day}T00:00:00.000Z", usd) for day, usd in ((3, "0.8"), (2, "1.1"))
    ]
    steps = AwsPrices(ec2.url).look([V100])[V100]
    assert [s.usd_micros_per_hour for s in steps] == [918_000, 1_100_000, 800_000]
    assert len(ec2.asked) == 2
    assert "StartTime" in ec2.asked[0]


@pytest.mark.parametrize("usd", ["NaN", "-0.5", "soon"])
def test_what_is_no_price_is_refused_also_when_aws_says_it(ec2, usd):
    ec2.history = [("p3.2xlarge", "us-east-1a", "2026-01-01T00:00:00.000Z", usd)]
    with pytest.raises(PriceError, match=f"AWS says that price {V100} is '{usd}'"):
        AwsPrices(ec2.url).look([V100])


def test_a_refusal_of_aws_is_said(ec2):
    ec2.refuses = "UnauthorizedOperation"
    with pytest.raises(PriceError, match=r"AWS does not tell price .*UnauthorizedOperation"):
        AwsPrices(ec2.url).look([V100])


def test_a_local_zone_is_asked_of_its_region(ec2):
    ec2.history = [("g4dn.xlarge", "us-west-2-lax-1a", "2026-01-01T00:00:00.000Z", "0.3")]
    assert AwsPrices(ec2.url).look(["aws/g4dn.xlarge/us-west-2-lax-1a/spot"])


# pools.yaml

POOL = "pools:\n  p: {market: spot, worker: {cpus: 8, memory: 61 GiB}, workers: {max: 2}, price: %s}\n"


def test_a_pool_has_the_price_that_its_name_stands_for(tmp_path):
    file = tmp_path / "pools.yaml"
    file.write_text(POOL % V100)
    said = declared.read(file, in_a_file(tmp_path, None))
    assert said.pools[0].price_at(NEW_YEAR) == 918_000
    assert said.price_names == {"p": V100}


def test_a_pool_whose_price_nobody_knows_is_refused_with_file_pool_and_name(tmp_path):
    file = tmp_path / "pools.yaml"
    file.write_text(POOL % "lab/big")
    with pytest.raises(PoolError, match=r"pools.yaml: pool 'p': price: there is no price 'lab/big'"):
        declared.read(file)
    file.write_text(POOL % "a//b")
    with pytest.raises(PoolError, match=r"pool 'p': price: .*pattern"):
        declared.read(file)


def test_the_file_comes_before_the_cloud(tmp_path, ec2):
    file = tmp_path / "prices.yaml"
    file.write_text(f"prices: {{{V100}: 0.5, lab/big: 2}}\n")
    zone_b = V100.replace("1a", "1b")
    ec2.history.append(("p3.2xlarge", "us-east-1b", "2026-01-01T00:00:00.000Z", "0.7"))
    found = prices.of(Settings(prices={"file": file, "aws_endpoint_url": ec2.url})).look([V100, zone_b, "lab/big"])
    assert {name: prices.in_force(steps, NEW_YEAR) for name, steps in found.items()} == {
        V100: 500_000,
        zone_b: 700_000,
        "lab/big": 2_000_000,
    }
    with pytest.raises(PriceError, match="there is no price 'lab/small'"):
        prices.of(Settings()).look(["lab/small"])


def test_a_watched_price_is_reported_when_it_changes_and_stays_while_nobody_tells_it():
    steps = [
        {V100: (PriceStep(since_ms=0, usd_micros_per_hour=1),)},
        {},
        {V100: (PriceStep(since_ms=0, usd_micros_per_hour=1),)},
        {V100: (PriceStep(since_ms=0, usd_micros_per_hour=2),)},
    ]
    looks: list[object] = []

    class Moving:
        def look(self, names):
            looks.append(names)
            return prices.KnownPrices(steps[min(len(looks), len(steps)) - 1]).look(names)

    heard: list[object] = []

    async def story() -> None:
        told = asyncio.Event()

        def report(price: object) -> None:
            heard.append(price)
            if len(heard) == 2:
                told.set()

        task = asyncio.ensure_future(prices.watch(Moving(), {"p": V100}, 0)(report))
        await asyncio.wait_for(told.wait(), 30)
        task.cancel()

    asyncio.run(story())
    assert heard == [Price(pool="p", usd_micros_per_hour=1), Price(pool="p", usd_micros_per_hour=2)]
    assert len(looks) >= 4
